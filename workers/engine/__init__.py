"""The loops of a worker, each behind one noun."""
