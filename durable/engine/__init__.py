"""Replay: the part of the library that makes an ordinary async function survive its process.

The store is authoritative; an `Attempt` is what one worker knows of one execution, and may be thrown away at any
moment. Read in this order: `journal` (what is stored and what will be), `attempt` (the life of a body), `runtime`
(what `ctx` does), `branch` (plain asyncio in a body), `transitions` (the decisions, pure). A `rehearsal` drives the
same attempt with what is recorded, and begins and stores nothing.

    worker ──claim──▶ Attempt ──▶ body ──ctx──▶ BodyRuntime
                         │                          │ record
                         └──commit──── Journal ◀────┘
"""
