-- Gates: who holds slots, who waits in line, and who may pass now.
--
-- One writer of a namespace at a time concerns itself with gates: seekers and lines span many executions, and no order
-- of locking these one by one would be free of deadlocks. As long as nobody seeks anything, nothing here is called.

CREATE FUNCTION durable.lock_gates(_ns integer) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(1146442306, _ns)   -- "DURB" in ASCII
$$;

-- The same for who can do without: whether it is to be had soon. A transaction of a user may hold it for long.
CREATE FUNCTION durable.lock_gates_soon(_ns integer) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
BEGIN
    PERFORM durable.lock_gates(_ns);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;

CREATE FUNCTION durable.gate_limit(_ns integer, _gate jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT coalesce(
            (SELECT number FROM durable.limits WHERE ns = _ns AND rule = _gate->>'rule'), (_gate->>'limit')::bigint
        )
    );
END $$;

-- When a rate lets the next one pass; a thousandth of a millisecond is what sums of fractions may be off by.
CREATE FUNCTION durable.gate_opens_at(_ns integer, _gate jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT ceil(
            coalesce((SELECT arrival_at FROM durable.gates WHERE ns = _ns AND name = _gate->>'name'), 0)
            - (_gate->>'burst')::double precision * (_gate->>'per_ms')::double precision / durable.gate_limit(_ns, _gate)
            - 1e-3
        )::bigint
    );
END $$;

CREATE FUNCTION durable.gate_has_room(_ns integer, _gate jsonb, _now bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    _name text := _gate->>'name';
    _since bigint := _now - (_gate->>'per_ms')::bigint;
BEGIN
    CASE _gate->>'kind'
        WHEN 'slots' THEN
            RETURN (SELECT count(*) FROM durable.slots WHERE ns = _ns AND gate = _name)
                < durable.gate_limit(_ns, _gate);
        WHEN 'rate' THEN
            RETURN _now >= durable.gate_opens_at(_ns, _gate);
        ELSE
            DELETE FROM durable.passes WHERE ns = _ns AND gate = _name AND at <= _since;
            RETURN (SELECT count(*) FROM durable.passes WHERE ns = _ns AND gate = _name AND at > _since)
                < durable.gate_limit(_ns, _gate);
    END CASE;
END $$;

-- Let a seeker pass a gate that has room for it. Rates and windows count it once.
CREATE FUNCTION durable.let_in(_ns integer, _gate jsonb, _n bigint, _step text, _now bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _name text := _gate->>'name';
    _per_ms bigint := (_gate->>'per_ms')::bigint;
BEGIN
    IF _gate->>'kind' = 'slots' THEN
        INSERT INTO durable.slots (ns, gate, n, step_id, since) VALUES (_ns, _name, _n, _step, _now);
        RETURN;
    END IF;
    IF _gate->>'kind' = 'rate' THEN
        UPDATE durable.gates
        SET arrival_at = greatest(arrival_at, _now) + _per_ms::double precision / durable.gate_limit(_ns, _gate)
        WHERE ns = _ns AND name = _name;
        UPDATE durable.gates SET idle_at = ceil(arrival_at)::bigint WHERE ns = _ns AND name = _name;
    ELSE
        INSERT INTO durable.passes (ns, gate, at) VALUES (_ns, _name, _now);
        UPDATE durable.gates SET idle_at = _now + _per_ms WHERE ns = _ns AND name = _name;
    END IF;
    UPDATE durable.seekers SET counted = counted || _name WHERE n = _n AND step_id = _step;
END $$;

-- Be there when time alone lets the first in line pass; without a gate there is nobody in line.
CREATE FUNCTION durable.watch_gate(_ns integer, _name text, _gate jsonb, _now bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _at bigint;
BEGIN
    IF _gate->>'kind' = 'rate' THEN
        _at := durable.gate_opens_at(_ns, _gate);
    ELSIF _gate->>'kind' = 'window' THEN
        SELECT min(at) + (_gate->>'per_ms')::bigint INTO _at FROM durable.passes WHERE ns = _ns AND gate = _name;
    END IF;
    UPDATE durable.gates SET opens_at = _at WHERE ns = _ns AND name = _name AND opens_at IS DISTINCT FROM _at;
END $$;

-- When time lets the first of some line pass.
CREATE FUNCTION durable.gates_open_at(_ns integer) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT min(opens_at) FROM durable.gates WHERE ns = _ns AND opens_at IS NOT NULL
    );
END $$;

CREATE FUNCTION durable.save_seeker(
    _ns integer, _n bigint, _step text, _gates jsonb, _message_id text
) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO durable.seekers (n, step_id, ns, gates, at, counted, message_id)
    VALUES (_n, _step, _ns, _gates, 0, '{}', _message_id)
    ON CONFLICT (n, step_id) DO UPDATE
    SET gates = excluded.gates, at = 0, counted = '{}', message_id = excluded.message_id;
    UPDATE durable.executions SET seeks = true WHERE n = _n AND NOT seeks
$$;

-- Let an execution seek its gates, its instant having come.
CREATE FUNCTION durable.seek_own(_n bigint, _now bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
    UPDATE durable.executions SET bell = 4, ring_at = _now, available_at = _now WHERE n = _n AND bell = 3;
    UPDATE durable.seekers SET at = 0 WHERE n = _n AND step_id = '';
    RETURN durable.seek(_n, '', _now);
END $$;

-- Pass as many gates as let it pass, and wait in line at the first that does not.
CREATE FUNCTION durable.seek(_n bigint, _step text, _now bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    _seeker durable.seekers;
    _head durable.executions;
    _gate jsonb;
    _name text;
    _at integer;
BEGIN
    SELECT * INTO _head FROM durable.executions WHERE n = _n FOR UPDATE;
    PERFORM durable.lock_gates(_head.ns);
    SELECT * INTO _seeker FROM durable.seekers WHERE n = _n AND step_id = _step;
    _at := _seeker.at;
    WHILE _at < jsonb_array_length(_seeker.gates) LOOP
        _gate := _seeker.gates->_at;
        _name := _gate->>'name';
        INSERT INTO durable.gates (ns, name, rule, kind, declared, per_ms, burst)
        VALUES (_head.ns, _name, _gate->>'rule', _gate->>'kind', (_gate->>'limit')::bigint,
                (_gate->>'per_ms')::bigint, (_gate->>'burst')::bigint)
        ON CONFLICT (ns, name) DO UPDATE
        SET declared = excluded.declared, per_ms = excluded.per_ms, burst = excluded.burst
        WHERE (gates.declared, gates.per_ms, gates.burst) <> (excluded.declared, excluded.per_ms, excluded.burst);
        IF NOT EXISTS (
            SELECT 1 FROM durable.slots WHERE ns = _head.ns AND gate = _name AND n = _n AND step_id = _step
        ) AND NOT EXISTS (
            SELECT 1 FROM durable.seekers WHERE n = _n AND step_id = _step AND _name = ANY(counted)
        ) THEN
            IF EXISTS (SELECT 1 FROM durable.line WHERE ns = _head.ns AND gate = _name)
                OR NOT durable.gate_has_room(_head.ns, _gate, _now)
            THEN
                UPDATE durable.seekers SET at = _at WHERE n = _n AND step_id = _step;
                RETURN durable.turn_away(_head, _step, _gate, _now);
            END IF;
            PERFORM durable.let_in(_head.ns, _gate, _n, _step, _now);
        END IF;
        _at := _at + 1;
    END LOOP;
    UPDATE durable.seekers SET at = _at WHERE n = _n AND step_id = _step;
    IF _step <> '' THEN
        RETURN durable.post_once(_n, (_seeker.message_id, 'gate', _step, ''::bytea, 'parked')::durable.message, _now);
    END IF;
    IF _head.bell IN (3, 4) THEN
        UPDATE durable.executions SET bell = 0, ring_at = NULL, available_at = _now WHERE n = _n;
        RETURN ARRAY[_n];
    END IF;
    RETURN '{}';
END $$;

-- A gate has no room for a seeker: it is refused, or waits in line, where others may have to make room for it.
CREATE FUNCTION durable.turn_away(_head durable.executions, _step text, _gate jsonb, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _name text := _gate->>'name';
    _refusal bytea := decode(_gate->>'refusal', 'hex');
    _is_new boolean := _head.started_at IS NULL;
    _effects bigint[] := '{}';
    _older record;
    _replaced bigint[] := '{}';
    _n bigint;
BEGIN
    IF _is_new AND (_gate->>'kind' = 'window' OR _gate->>'when_full' = 'refuse') THEN
        RETURN durable.close(_head.n, 'cancelled', NULL, _refusal, NULL, _now);
    END IF;
    IF _is_new AND _gate->>'when_full' = 'replace' THEN
        FOR _older IN
            WITH there AS (
                SELECT n, step_id, true AS holds, since, turn FROM durable.slots
                WHERE ns = _head.ns AND gate = _name AND NOT replaced
                UNION ALL
                SELECT n, step_id, false, since, turn FROM durable.line
                WHERE ns = _head.ns AND gate = _name AND NOT replaced
            )
            SELECT n, step_id FROM there ORDER BY holds DESC, since, turn
            LIMIT greatest(0, (SELECT count(*) FROM there) + 1 - durable.gate_limit(_head.ns, _gate))
        LOOP
            UPDATE durable.slots SET replaced = true
            WHERE ns = _head.ns AND gate = _name AND n = _older.n AND step_id = _older.step_id;
            UPDATE durable.line SET replaced = true
            WHERE gate = _name AND n = _older.n AND step_id = _older.step_id;
            _replaced := _replaced || _older.n;
        END LOOP;
    END IF;
    INSERT INTO durable.line (n, step_id, ns, gate, priority, since)
    VALUES (_head.n, _step, _head.ns, _name, _head.priority, _now);
    PERFORM durable.watch_gate(_head.ns, _name, _gate, _now);
    FOREACH _n IN ARRAY _replaced LOOP
        _effects := _effects || durable.post_once(
            _n, ('replaced:' || _name, 'cancel', 'cancel', _refusal, 'blocked')::durable.message, _now
        );
    END LOOP;
    RETURN _effects;
END $$;

-- Let the first in line pass at these gates, as long as there is room.
CREATE FUNCTION durable.advance(_ns integer, _names text[], _now bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    _name text;
    _first record;
    _gate jsonb;
    _effects bigint[] := '{}';
BEGIN
    IF cardinality(_names) = 0 THEN
        RETURN _effects;
    END IF;
    PERFORM durable.lock_gates(_ns);
    FOREACH _name IN ARRAY _names LOOP
        LOOP
            SELECT l.n, l.step_id, s.gates->s.at AS gate INTO _first
            FROM durable.line AS l JOIN durable.seekers AS s USING (n, step_id)
            WHERE l.ns = _ns AND l.gate = _name ORDER BY l.priority DESC, l.since, l.turn LIMIT 1;
            IF NOT FOUND THEN
                PERFORM durable.watch_gate(_ns, _name, NULL, _now);
                EXIT;
            END IF;
            _gate := _first.gate;
            IF NOT durable.gate_has_room(_ns, _gate, _now) THEN
                PERFORM durable.watch_gate(_ns, _name, _gate, _now);
                EXIT;
            END IF;
            DELETE FROM durable.line WHERE n = _first.n AND step_id = _first.step_id;
            PERFORM durable.let_in(_ns, _gate, _first.n, _first.step_id, _now);
            UPDATE durable.seekers SET at = at + 1 WHERE n = _first.n AND step_id = _first.step_id;
            _effects := _effects || durable.seek(_first.n, _first.step_id, _now);
        END LOOP;
    END LOOP;
    RETURN _effects;
END $$;

-- Wait nowhere any more and give the slots back, but for those that are kept to the end, if it has not come; the names
-- of the gates that have room again.
CREATE FUNCTION durable.give_back(_ns integer, _n bigint, _step text, _ended boolean) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    _freed text[];
    _gates jsonb;
BEGIN
    PERFORM durable.lock_gates(_ns);
    SELECT gates INTO _gates FROM durable.seekers WHERE n = _n AND step_id = _step;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    DELETE FROM durable.line WHERE n = _n AND step_id = _step;
    WITH freed AS (
        DELETE FROM durable.slots AS s
        USING jsonb_array_elements(_gates) WITH ORDINALITY AS g (gate, place)
        WHERE s.ns = _ns AND s.gate = g.gate->>'name' AND s.n = _n AND s.step_id = _step
            AND g.gate->>'kind' = 'slots' AND (_ended OR NOT (g.gate->>'keeps')::boolean)
        RETURNING s.gate, g.place
    )
    SELECT coalesce(array_agg(gate ORDER BY place), '{}') INTO _freed FROM freed;
    IF _ended THEN
        DELETE FROM durable.seekers WHERE n = _n AND step_id = _step;
    END IF;
    RETURN _freed;
END $$;

-- Give back what a step, or the ended execution itself, holds.
CREATE FUNCTION durable.free(_ns integer, _n bigint, _step text, _now bigint) RETURNS bigint[] LANGUAGE sql VOLATILE AS $$
    SELECT durable.advance(_ns, durable.give_back(_ns, _n, _step, true), _now)
$$;

CREATE FUNCTION durable.free_steps(_ns integer, _n bigint, _and_itself boolean, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _step text;
    _effects bigint[] := '{}';
BEGIN
    FOR _step IN
        SELECT step_id FROM durable.seekers WHERE n = _n AND (_and_itself OR step_id <> '') ORDER BY step_id
    LOOP
        _effects := _effects || durable.free(_ns, _n, _step, _now);
    END LOOP;
    RETURN _effects;
END $$;
