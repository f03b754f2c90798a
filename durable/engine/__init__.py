"""Replay: the part of the library that makes an ordinary async function survive its process.

The store is authoritative; an `Attempt` is what one worker knows of one execution, and may be thrown away at any
moment. Read in this order: `journal` (what is stored and what will be), `attempt` (the life of a body), `runtime`
(what `ctx` does), `branch` (plain asyncio in a body), `transitions` (the decisions, pure).

    worker ──claim──▶ Attempt ──▶ body ──ctx──▶ BodyRuntime
                         │                          │ record
                         └──commit──── Journal ◀────┘
"""
