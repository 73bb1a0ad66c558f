"""The demo shop: articles, customers, purchases and mistakes from one seed."""
