"""The real engine in a simulated world: its own event loop, virtual time, and faults at every port, all from a seed.

`loop` is the event loop and its processes, `ports` what nodes see of the store, the queue and the bus, `faults` what
goes wrong, `witness` what must hold, `world` one run, and `simulate` many of them. A seed gives the same run each time.
"""
