"""One decoder, its layout on a mesh, and descriptions of the model families."""
