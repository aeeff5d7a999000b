"""Fast CPU layers for the Caffe that ``tools/setup`` makes: C++ sources in ``src``, and where they apply."""
