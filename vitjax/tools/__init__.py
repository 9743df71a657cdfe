"""Tools for trained models: prediction, evaluation, probing, export and annotation."""
