"""Prints what may happen to an order, before any order has been placed."""

from order import fulfil_order

from durable import describe

if __name__ == "__main__":
    print(describe(fulfil_order).to_mermaid(), end="")
