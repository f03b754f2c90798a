-- The verbs that concern whatever is due: timers, deserted executions, doorbells, what is old enough to be deleted.
-- What somebody else is about to change is passed over, and found by the next sweep.

CREATE FUNCTION durable.tick(_ns integer, _live_at bigint, _workers text[], _limit integer) RETURNS durable.ticked
LANGUAGE plpgsql SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    _now bigint := durable.now_ms();
    _ticked durable.ticked;
    _effects bigint[] := '{}';
    _each record;
    _found bigint[];
    _mine bigint[];
    _names text[];
    _is_gated boolean;
    _is_held boolean := false;
    _count bigint;
BEGIN
    _is_gated := EXISTS (SELECT 1 FROM durable.seekers WHERE ns = _ns)
        OR EXISTS (SELECT 1 FROM durable.gates WHERE ns = _ns)
        OR EXISTS (SELECT 1 FROM durable.changed_rules WHERE ns = _ns);
    IF _is_gated THEN
        _is_gated := durable.lock_gates_soon(_ns);
        _is_held := NOT _is_gated;
    END IF;

    SELECT array_agg(DISTINCT n), count(*) INTO _found, _count FROM (
        SELECT n FROM durable.timers WHERE ns = _ns AND at <= _now ORDER BY at, n, seq LIMIT _limit + 1
    ) AS t;
    _ticked.more := _count > _limit;
    IF _count > 0 THEN
        SELECT array_agg(n) INTO _mine FROM (
            SELECT n FROM durable.executions WHERE n = ANY(_found) AND NOT (seeks AND _is_held)
            ORDER BY n FOR UPDATE SKIP LOCKED
        ) AS e;
        _ticked.more := _ticked.more AND _mine IS NOT NULL;
        FOR _each IN
            WITH fired AS (
                DELETE FROM durable.timers WHERE (n, step_id) IN (
                    SELECT n, step_id FROM durable.timers
                    WHERE ns = _ns AND at <= _now AND n = ANY(_mine) ORDER BY at, n, seq LIMIT _limit
                ) RETURNING n, step_id, seq, at
            ) SELECT n, step_id, seq FROM fired ORDER BY at, n, seq
        LOOP
            _effects := _effects || durable.fire(_each.n, _each.step_id, _each.seq, _now);
        END LOOP;
    END IF;

    _count := 0;
    FOR _each IN
        SELECT n FROM durable.executions
        WHERE ns = _ns AND status = 'running' AND created_at > 0 AND state = 'owned' AND owned_at < _live_at
            AND NOT worker = ANY(_workers) AND NOT (seeks AND _is_held)
        ORDER BY n LIMIT _limit + 1 FOR UPDATE SKIP LOCKED
    LOOP
        _count := _count + 1;
        IF _count > _limit THEN
            _ticked.more := true;
            EXIT;
        END IF;
        UPDATE durable.executions SET crashes = crashes + 1 WHERE n = _each.n;
        _effects := _effects || durable.make_ready(_each.n, _now, _now, true);
    END LOOP;

    IF _is_gated THEN
        _count := 0;
        FOR _each IN
            SELECT n FROM durable.executions WHERE ns = _ns AND bell = 3 AND ring_at <= _now
            ORDER BY ring_at LIMIT _limit + 1 FOR UPDATE SKIP LOCKED
        LOOP
            _count := _count + 1;
            IF _count > _limit THEN
                _ticked.more := true;
                EXIT;
            END IF;
            _effects := _effects || durable.seek_own(_each.n, _now);
        END LOOP;
        SELECT coalesce(array_agg(name), '{}') INTO _names FROM (
            SELECT name FROM durable.gates WHERE ns = _ns AND opens_at <= _now
            UNION SELECT g.name FROM durable.gates AS g JOIN durable.changed_rules AS r USING (ns, rule)
            WHERE ns = _ns AND g.per_ms >= 0
        ) AS opening;
        DELETE FROM durable.changed_rules WHERE ns = _ns;
        _effects := _effects || durable.advance(_ns, _names, _now);
        DELETE FROM durable.gates AS g WHERE ns = _ns AND idle_at <= _now AND idle_at >= -1
            AND NOT EXISTS (SELECT 1 FROM durable.slots AS s WHERE s.ns = _ns AND s.gate = g.name)
            AND NOT EXISTS (SELECT 1 FROM durable.line AS l WHERE l.ns = _ns AND l.gate = g.name);
    END IF;

    IF cardinality(_effects) > 0 THEN
        _ticked.bells := durable.bells(_effects);
        _ticked.touched := durable.touched(_effects);
    END IF;
    _ticked.next_at := least(
        (SELECT min(at) FROM durable.timers WHERE ns = _ns),
        (SELECT min(ring_at) FROM durable.executions WHERE ns = _ns AND bell = 2 AND ring_at > _now),
        (SELECT min(ring_at) FROM durable.executions WHERE ns = _ns AND bell = 3 AND ring_at > _now),
        durable.gates_open_at(_ns)
    );
    _ticked.now := _now;
    RETURN _ticked;
END $$;

CREATE FUNCTION durable.due(
    _ns integer, _queues text[], _workflows text[], _versions text[], _limit integer, _again_ms bigint
) RETURNS SETOF durable.bell LANGUAGE plpgsql
SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    _now bigint := durable.now_ms();
    _found bigint[];
    _taken bigint[];
    _left integer := _limit;
    _held integer := 0;
BEGIN
    FOR _bell IN 1..2 LOOP
        UPDATE durable.executions SET bell = 0, ring_at = NULL WHERE n IN (
            SELECT n FROM durable.executions WHERE ns = _ns AND bell = _bell AND bell > 0 AND ring_at <= _now
            ORDER BY ring_at LIMIT 1000 FOR UPDATE SKIP LOCKED
        );
    END LOOP;
    -- Fewer than the limit say that there are no more: for those that others hold, there are others further on.
    LOOP
        SELECT array_agg(n) INTO _found FROM (
            SELECT e.n
            FROM (SELECT DISTINCT * FROM unnest(_queues, _workflows, _versions)) AS lane (queue, workflow, version)
            CROSS JOIN LATERAL (
                SELECT n, priority, available_at FROM durable.executions AS e
                WHERE e.ns = _ns AND e.bell = 0 AND e.queue = lane.queue AND e.workflow = lane.workflow
                    AND e.version = lane.version
                ORDER BY e.priority DESC, e.available_at, e.n LIMIT _left + _held
            ) AS e
            ORDER BY e.priority DESC, e.available_at, e.n LIMIT _left + _held
        ) AS first;
        EXIT WHEN _found IS NULL;
        WITH free AS (
            SELECT n FROM durable.executions WHERE n = ANY(_found) AND bell = 0
            ORDER BY priority DESC, available_at, n LIMIT _left FOR UPDATE SKIP LOCKED
        ), rung AS (
            UPDATE durable.executions AS e SET bell = 1, ring_at = _now + _again_ms FROM free
            WHERE e.n = free.n RETURNING e.n
        )
        SELECT _taken || array_agg(n) INTO _taken FROM rung;
        EXIT WHEN cardinality(_taken) >= _limit OR cardinality(_found) < _left + _held;
        _left := _limit - coalesce(cardinality(_taken), 0);
        _held := 2 * _held + _limit;
    END LOOP;
    RETURN QUERY
        SELECT id, workflow, version, queue, priority, crashes, available_at FROM durable.executions
        WHERE n = ANY(_taken) ORDER BY priority DESC, available_at, n;
END $$;

-- `due` and `tick`, of which one may be left out: without queues, or without an instant. `due` comes first: what a tick
-- makes ready it tells by itself, and is not to be rung a second time.
CREATE FUNCTION durable.sweep(
    _ns integer, _queues text[], _workflows text[], _versions text[], _most_due integer, _again_ms bigint,
    _live_at bigint, _workers text[], _most_fired integer
) RETURNS TABLE (bells durable.bell[], ticked durable.ticked) LANGUAGE plpgsql AS $$
BEGIN
    IF _queues IS NOT NULL THEN
        bells := ARRAY(SELECT b FROM durable.due(_ns, _queues, _workflows, _versions, _most_due, _again_ms) AS b);
    END IF;
    IF _live_at IS NOT NULL THEN
        ticked := durable.tick(_ns, _live_at, _workers, _most_fired);
    END IF;
    RETURN NEXT;
END $$;

CREATE FUNCTION durable.prune(_ns integer, _before bigint, _statuses text[], _limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    _numbers bigint[];
BEGIN
    SELECT coalesce(array_agg(n), '{}') INTO _numbers FROM (
        SELECT n FROM durable.executions
        WHERE ns = _ns AND status = ANY(_statuses) AND state = 'closed' AND finished_at < _before
            AND created_at < _before AND created_at > 0
        ORDER BY n LIMIT _limit FOR UPDATE SKIP LOCKED
    ) AS old;
    DELETE FROM durable.joined WHERE n = ANY(_numbers);
    DELETE FROM durable.pending WHERE n = ANY(_numbers);
    DELETE FROM durable.checkpoints WHERE n = ANY(_numbers);
    DELETE FROM durable.inbox WHERE n = ANY(_numbers);
    DELETE FROM durable.message_ids WHERE n = ANY(_numbers);
    DELETE FROM durable.named_values WHERE n = ANY(_numbers);
    DELETE FROM durable.tags WHERE n = ANY(_numbers);
    DELETE FROM durable.inputs WHERE n = ANY(_numbers);
    DELETE FROM durable.executions WHERE n = ANY(_numbers);
    RETURN cardinality(_numbers);
END $$;

CREATE FUNCTION durable.prune_events(_ns integer, _before bigint, _limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    _count integer;
BEGIN
    DELETE FROM durable.events WHERE (ns, name, seq) IN (
        SELECT ns, name, seq FROM durable.events WHERE ns = _ns AND at < _before AND at > 0
        ORDER BY at LIMIT _limit FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS _count = ROW_COUNT;
    RETURN _count;
END $$;

CREATE FUNCTION durable.set_limit(_ns integer, _rule text, _number bigint) RETURNS void
LANGUAGE plpgsql SET search_path = durable, pg_temp AS $$
BEGIN
    PERFORM durable.lock_gates(_ns);
    DELETE FROM durable.limits WHERE ns = _ns AND rule = _rule;
    IF _number IS NOT NULL THEN
        INSERT INTO durable.limits (ns, rule, number) VALUES (_ns, _rule, _number);
    END IF;
    INSERT INTO durable.changed_rules (ns, rule) VALUES (_ns, _rule) ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION durable.beat(_ns integer, _worker text, _ttl_ms bigint, _info bytea) RETURNS void
LANGUAGE plpgsql SET search_path = durable, pg_temp AS $$
BEGIN
    IF _ttl_ms > 0 THEN
        INSERT INTO durable.workers (ns, id, until, info) VALUES (_ns, _worker, durable.now_ms() + _ttl_ms, _info)
        ON CONFLICT (ns, id) DO UPDATE SET until = excluded.until, info = excluded.info;
    ELSE
        DELETE FROM durable.workers WHERE ns = _ns AND (id = _worker OR until <= durable.now_ms() - 3600000);
    END IF;
END $$;
