"""Other frameworks, measured with the same workloads. Each runs from its own package, in an environment of its own.

environments          their packages, pinned, in a folder of the checkout
servers               PostgreSQL and Restate
catalogue             which there are, and what each needs
measure               one measurement of one peer
driving, *_driver     programs that run in the environments: the workloads in each peer's own words
"""
