"""The rows of the op table, a file for each family of ops; ir/ops.py joins and checks them."""
