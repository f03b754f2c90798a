"""How fast `durable` is: one file for each question, the same code for every backend. See README.md.

figures               what is measured, and how good it should be
worlds                a `Durable` on each backend; other processes
servers               the Redis and the RabbitMQ of a run
w1_... to w7_...      the workloads
memory_of_sleepers    what 10,000 sleeping executions cost
ceiling               the same durable writes by a bare program; ceiling_writes: what they are,
                      ceiling_local, ceiling_redis: where they go
one                   one measurement, in a process of its own
report                medians, spread, goals: the table
"""
