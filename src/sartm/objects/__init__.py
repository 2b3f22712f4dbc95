"""From label maps to the things in them: how many, where, how large and how hot."""
