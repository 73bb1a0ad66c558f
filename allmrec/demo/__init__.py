"""The demo shop: an outdoor, home and hobby shop whose customers, purchases and mistakes in the data are all generated from one seed."""
