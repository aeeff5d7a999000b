"""Setting up what trainings need: the Caffe runtime, the fast layers, and a clone's virtual environment.

``tools/setup`` runs this before anything is installed, so everything here except the command itself
(``__main__``) needs the standard library only.
"""
