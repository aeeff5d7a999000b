"""Fast CPU layers for the Caffe that setup makes: C++ sources in ``src``, and where they apply."""
