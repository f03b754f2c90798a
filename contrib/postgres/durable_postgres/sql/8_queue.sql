-- Doorbells, one for each execution at most. They are hints: what a crash takes of them is rung again by the store.

CREATE UNLOGGED TABLE durable.doorbells (
    ns       integer NOT NULL,
    id       text COLLATE "C" NOT NULL,
    workflow text NOT NULL,
    version  text NOT NULL,
    queue    text COLLATE "C" NOT NULL,
    priority integer NOT NULL,
    crashes  integer NOT NULL,
    ready_at bigint NOT NULL,
    rung_at  bigint NOT NULL,
    turn     bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (ns, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX doorbells_order ON durable.doorbells (ns, queue, priority DESC, turn);
CREATE INDEX doorbells_old ON durable.doorbells (ns, rung_at);

-- Announce executions, and forget what nobody has wanted for ten minutes.
CREATE FUNCTION durable.ring(_ns integer, _bells durable.bell[]) RETURNS void LANGUAGE plpgsql
SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    _now bigint := durable.now_ms();
BEGIN
    INSERT INTO durable.doorbells (ns, id, workflow, version, queue, priority, crashes, ready_at, rung_at)
    SELECT _ns, id, workflow, version, queue, priority, crashes, ready_at, _now FROM unnest(_bells) ORDER BY id
    ON CONFLICT (ns, id) DO UPDATE SET rung_at = excluded.rung_at, crashes = excluded.crashes;
    DELETE FROM durable.doorbells WHERE (ns, id) IN (
        SELECT ns, id FROM durable.doorbells WHERE ns = _ns AND rung_at < _now - 600000
        LIMIT 100 FOR UPDATE SKIP LOCKED
    );
END $$;

CREATE FUNCTION durable.take(_ns integer, _queues text[], _workflows text[], _limit integer)
RETURNS SETOF durable.bell LANGUAGE sql VOLATILE
SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
    WITH taken AS (
        DELETE FROM durable.doorbells WHERE (ns, id) IN (
            SELECT ns, id FROM durable.doorbells
            WHERE ns = _ns AND queue = ANY(_queues) AND workflow || '@' || version = ANY(_workflows)
            ORDER BY priority DESC, turn LIMIT _limit FOR UPDATE SKIP LOCKED
        ) RETURNING *
    )
    SELECT id, workflow, version, queue, priority, crashes, ready_at FROM taken ORDER BY priority DESC, turn
$$;
