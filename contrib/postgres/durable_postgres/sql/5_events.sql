-- Events, who listens for them, and whom they start.
--
-- A name's row of `event_names` is locked by who stores an event, and shared by who begins to listen: no event slips
-- between a listener's look at what is stored and its registration. Executions are locked before names.

-- Add a listener, and send it to look if there is an event that it has not looked at.
CREATE FUNCTION durable.listen(_ns integer, _n bigint, _listen durable.listening, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _seq bigint;
BEGIN
    INSERT INTO durable.event_names (ns, name, seq) VALUES (_ns, _listen.event, 0) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM durable.event_names WHERE ns = _ns AND name = _listen.event FOR SHARE;
    IF _listen.shape <> '' THEN
        INSERT INTO durable.event_shapes (ns, name, shape) VALUES (_ns, _listen.event, _listen.shape)
        ON CONFLICT DO NOTHING;
    END IF;
    DELETE FROM durable.listeners WHERE n = _n AND event = _listen.event AND step_id = _listen.step_id;
    INSERT INTO durable.listeners (n, event, step_id, ns, shape, topic, cancel)
    VALUES (_n, _listen.event, _listen.step_id, _ns, _listen.shape, _listen.topic, _listen.cancel);
    IF _listen.seen IS NULL THEN
        RETURN '{}';
    END IF;
    SELECT seq INTO _seq FROM durable.events WHERE ns = _ns AND name = _listen.event AND seq > _listen.seen
        AND (_listen.topic = '' OR _listen.topic = ANY(topics) OR NOT _listen.shape = ANY(shapes))
    ORDER BY seq LIMIT 1;
    RETURN CASE WHEN _seq IS NULL THEN '{}' ELSE durable.send_to_look(_n, _listen.step_id, _seq, _now) END;
END $$;

CREATE FUNCTION durable.send_to_look(_n bigint, _step text, _seq bigint, _now bigint) RETURNS bigint[]
LANGUAGE sql VOLATILE AS $$
    SELECT durable.post_once(
        _n, ('look:' || _seq || ':' || _step, 'event', _step, ''::bytea, 'parked')::durable.message, _now
    )
$$;

-- Who listens for an event, topic by topic: see `durable.serve` for why.
CREATE FUNCTION durable.listeners_of(_ns integer, _emit durable.emitting) RETURNS SETOF durable.listeners
LANGUAGE plpgsql ROWS 1 AS $$
DECLARE
    _topic text;
BEGIN
    FOR _topic IN SELECT DISTINCT unnest(_emit.topics || ''::text) LOOP
        RETURN QUERY SELECT * FROM durable.listeners WHERE ns = _ns AND event = _emit.name AND topic = _topic;
    END LOOP;
END $$;

-- Store an event if its id is new; start what it starts, and tell who listens. The receipt, and the effects.
CREATE FUNCTION durable.emit(
    _ns integer, _emit durable.emitting, _op_id text, _now bigint,
    OUT _ids text[], OUT _is_duplicate boolean, OUT _effects bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    _known durable.events;
    _seq bigint;
    _place tid;
    _spec durable.spec;
    _started durable.started;
    _each record;
    _number integer := 0;
    _packed bytea;
BEGIN
    _effects := '{}';
    PERFORM 1 FROM durable.executions WHERE n IN (
        SELECT n FROM durable.listeners_of(_ns, _emit)
    ) ORDER BY n FOR UPDATE;
    INSERT INTO durable.event_names (ns, name, seq) VALUES (_ns, _emit.name, 0) ON CONFLICT DO NOTHING;
    SELECT seq + 1 INTO _seq FROM durable.event_names WHERE ns = _ns AND name = _emit.name FOR UPDATE;
    SELECT * INTO _known FROM durable.events WHERE ns = _ns AND name = _emit.name AND id = _emit.id;
    IF FOUND THEN
        _ids := _known.receipt;
        _is_duplicate := _known.op_id <> _op_id;
        RETURN;
    END IF;
    UPDATE durable.event_names SET seq = _seq WHERE ns = _ns AND name = _emit.name;
    INSERT INTO durable.events (ns, name, seq, id, data, at, op_id, shapes, topics)
    VALUES (_ns, _emit.name, _seq, _emit.id, _emit.data, _now, _op_id, _emit.shapes, _emit.topics)
    RETURNING ctid INTO _place;
    _ids := '{}';
    _is_duplicate := false;
    FOREACH _spec IN ARRAY _emit.starts LOOP
        _started := durable.start(_ns, _spec, _op_id || ':' || _number, _now);
        _ids := _ids || _started.id;
        _effects := _effects || _started.effects;
        _number := _number + 1;
    END LOOP;
    FOR _each IN
        SELECT l.n, l.step_id, l.cancel, e.id
        FROM durable.listeners_of(_ns, _emit) AS l JOIN durable.executions AS e USING (n) ORDER BY l.turn
    LOOP
        _ids := _ids || _each.id;
        DELETE FROM durable.listeners WHERE n = _each.n AND event = _emit.name AND step_id = _each.step_id;
        IF _each.cancel IS NULL THEN
            _packed := coalesce(_packed, convert_to(_seq || ' ' || _now || ' ', 'UTF8') || _emit.words || _emit.data);
            _effects := _effects || durable.post_once(
                _each.n,
                ('event:' || _seq || ':' || _each.step_id, 'event', _each.step_id, _packed, 'parked')::durable.message,
                _now
            );
        ELSE
            _effects := _effects || durable.post_once(
                _each.n,
                ('event:' || _seq || ':' || _each.step_id, 'cancel', 'cancel', _each.cancel, 'blocked')::durable.message,
                _now
            );
        END IF;
    END LOOP;
    FOR _each IN
        SELECT l.n, l.step_id FROM durable.event_shapes AS s
        JOIN durable.listeners AS l ON l.ns = s.ns AND l.event = s.name AND l.shape = s.shape AND l.turn > 0
        WHERE s.ns = _ns AND s.name = _emit.name AND NOT s.shape = ANY(_emit.shapes) AND l.cancel IS NULL
        ORDER BY l.turn
    LOOP
        _effects := _effects || durable.send_to_look(_each.n, _each.step_id, _seq, _now);
    END LOOP;
    IF cardinality(_ids) > 0 THEN
        UPDATE durable.events SET receipt = _ids WHERE ctid = _place;   -- nobody else has seen it yet
    END IF;
END $$;
