"""How fast `durable` is: one file for each question, the same code for every backend. See README.md.

figures               what is measured, and how good it should be
worlds                a `Durable` on each backend; other processes
servers               the Redis and the RabbitMQ of a run
w1_... to w7_...      the workloads
memory_of_sleepers    what 10,000 sleeping executions cost
scale/                what happens when there is much of something, and what one of anything costs
ceiling               the same durable writes by a bare program; ceiling_writes: what they are,
                      ceiling_local, ceiling_redis: where they go
peers/                other frameworks: their packages, servers, and drivers
one                   one measurement, in a process of its own
record                what a run found, as it is kept
report                medians, spread, shares, ratios, goals: the table
model                 what one execution costs, and what larger systems need
pages, plots          the tables and pictures of docs, from what was kept
"""
