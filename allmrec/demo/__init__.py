"""The demo shop: outdoor, home and hobby articles, customers, purchases and mistakes, all from one seed."""
