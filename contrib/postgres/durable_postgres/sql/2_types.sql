-- What the verbs are asked and what they answer. Payloads travel as parameters of these types, never in a statement.

CREATE TYPE durable.message AS (id text, kind text, name text, data bytea, reach text);

CREATE TYPE durable.listening AS (event text, step_id text, topic text, shape text, seen bigint, cancel bytea);

-- `seq` of a record that is to be written: its place in the batch, from 1.
CREATE TYPE durable.record AS (
    step_id text, kind text, name text, status text, data bytea, attempts bigint, started_at bigint,
    finished_at bigint, wake_at bigint, seq bigint
);

CREATE TYPE durable.joining AS ("group" text, wait_ms bigint, most_ms bigint, size bigint, items bigint);

CREATE TYPE durable.spec AS (
    id text, workflow text, version text, input bytea, queue text, priority integer, key text,
    reuse_closed_key boolean, tags text, tag_list text[], options bytea, delay_ms bigint, at_ms bigint,
    timeout_ms bigint, parent_id text, gates jsonb, joins durable.joining, listens durable.listening[], cause bytea,
    records durable.record[], names text[], datas bytea[]
);

CREATE TYPE durable.emitting AS (
    id text, name text, data bytea, shapes text[], topics text[], starts durable.spec[],
    words bytea   -- the name and the id, as `EventRow.pack` ends its first line with them
);

CREATE TYPE durable.sending AS (
    kind text, target text, step_id text, message_id text, gates jsonb, spec durable.spec,
    message durable.message, emit durable.emitting, listen durable.listening
);

CREATE TYPE durable.entry AS (
    seq bigint, id text, kind text, name text, data bytea, at bigint, consumed_by text
);

CREATE TYPE durable.request AS (
    verb text, id text, nonce text, worker text, op_id text, have_op text, ver bigint, seen bigint,
    spec durable.spec, message durable.message,
    records durable.record[], written bigint, has_timers boolean, drops text[],
    consumed bigint[], consumers text[], names text[], datas bytea[], outs durable.sending[],
    next text, status text, at bigint, attempt bigint, result bytea, error bytea, code text
);

CREATE TYPE durable.bell AS (
    id text, workflow text, version text, queue text, priority integer, crashes integer, ready_at bigint
);

CREATE TYPE durable.answer AS (
    code text, id text, is_so boolean, number bigint, size bigint, state text, at bigint, now bigint,
    bells durable.bell[], touched text[], next_at bigint,
    inbox durable.entry[], history durable.record[], shown durable.shown
);

-- What came of a `NewExecution`: `kind` is `created`, `joined` or `exists`.
CREATE TYPE durable.started AS (
    kind text, n bigint, id text, available_at bigint, same_input boolean, effects bigint[]
);

CREATE TYPE durable.ticked AS (
    bells durable.bell[], touched text[], more boolean, next_at bigint, now bigint
);
