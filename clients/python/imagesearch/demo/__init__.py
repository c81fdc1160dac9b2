"""`make demo`: real pictures in, edited copies as questions, a verdict out.

`python -m imagesearch.demo [--images FOLDER] [--target HOST:PORT]` wants a running suite. Each type
of library has a module with a `run` of its own; `__main__` runs them all.
"""
