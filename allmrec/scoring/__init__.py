"""Retrieval and scoring with a bundle: candidate lists in, candidate lists with further parts out."""
