-- The verbs that concern one execution. Each decides first, and changes nothing before it has decided.

-- Add an execution; NULL when its id or its key was taken meanwhile.
CREATE FUNCTION durable.insert_execution(_ns integer, _spec durable.spec, _op_id text, _now bigint)
RETURNS durable.started LANGUAGE plpgsql AS $$
DECLARE
    _at bigint := greatest(_now + _spec.delay_ms, coalesce(_spec.at_ms, 0));
    _is_gated boolean := jsonb_array_length(_spec.gates) > 0;
    _started durable.started;
    _listen durable.listening;
    _bell smallint;
BEGIN
    _bell := CASE WHEN _is_gated THEN CASE WHEN _at > _now THEN 3 ELSE 4 END ELSE CASE WHEN _at > _now THEN 2 ELSE 0 END END;
    INSERT INTO durable.executions (
        ns, id, workflow, version, queue, priority, key, holds_key, parent_id, state, status, created_at, available_at,
        bell, ring_at, deadline_at
    ) VALUES (
        _ns, _spec.id, _spec.workflow, _spec.version, _spec.queue, _spec.priority, _spec.key, _spec.key IS NOT NULL,
        _spec.parent_id, 'ready', 'pending', _now, greatest(_at, _now),
        _bell, CASE WHEN _bell > 0 THEN greatest(_at, _now) END, _now + _spec.timeout_ms
    ) ON CONFLICT DO NOTHING RETURNING n INTO _started.n;
    IF _started.n IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO durable.inputs (n, create_op, input, options, tags, cause, items)
    VALUES (_started.n, _op_id, _spec.input, _spec.options, _spec.tags, _spec.cause,
            coalesce((_spec.joins).items, 0));
    IF cardinality(_spec.tag_list) > 0 THEN
        INSERT INTO durable.tags (ns, tag, created_at, n)
        SELECT _ns, tag, _now, _started.n FROM unnest(_spec.tag_list) AS tag;
    END IF;
    IF cardinality(_spec.records) > 0 THEN
        INSERT INTO durable.checkpoints (
            n, step_id, seq, kind, name, status, data, attempts, started_at, finished_at, wake_at
        )
        SELECT _started.n, step_id, seq, kind, name, status, data, attempts, started_at, finished_at, wake_at
        FROM unnest(_spec.records);
        UPDATE durable.executions
        SET records = cardinality(_spec.records), history_seq = (SELECT max(seq) FROM unnest(_spec.records))
        WHERE n = _started.n;
    END IF;
    IF cardinality(_spec.names) > 0 THEN
        INSERT INTO durable.named_values (n, name, data)
        SELECT _started.n, name, data FROM unnest(_spec.names, _spec.datas) AS v (name, data);
    END IF;
    IF _spec.timeout_ms IS NOT NULL THEN
        INSERT INTO durable.timers (n, step_id, ns, at, seq)
        VALUES (_started.n, '__timeout', _ns, _now + _spec.timeout_ms, 0);
    END IF;
    _started.effects := CASE WHEN _bell = 0 THEN ARRAY[_started.n] ELSE '{}' END;
    FOREACH _listen IN ARRAY _spec.listens LOOP
        _started.effects := _started.effects || durable.listen(_ns, _started.n, _listen, _now);
    END LOOP;
    IF _is_gated THEN
        PERFORM durable.save_seeker(_ns, _started.n, '', _spec.gates, '');
        IF _bell = 4 THEN
            _started.effects := _started.effects || durable.seek_own(_started.n, _now);
        END IF;
    END IF;
    _started.kind := 'created';
    _started.id := _spec.id;
    _started.available_at := greatest(_at, _now);
    RETURN _started;
END $$;

-- Create it, or let it join its group.
CREATE FUNCTION durable.start(_ns integer, _spec durable.spec, _op_id text, _now bigint) RETURNS durable.started
LANGUAGE plpgsql AS $$
DECLARE
    _started durable.started;
    _same_key durable.executions;
    _has_join boolean := (_spec.joins)."group" IS NOT NULL;
BEGIN
    IF _has_join THEN
        SELECT 'joined', e.n, e.id, j.available_at, NULL,
               CASE WHEN durable.is_claimable(e, _now) THEN ARRAY[e.n] ELSE '{}' END INTO _started
        FROM durable.joined AS j JOIN durable.executions AS e USING (n) WHERE j.ns = _ns AND j.op_id = _op_id;
        IF FOUND THEN
            RETURN _started;
        END IF;
    END IF;
    -- A random id is taken by nobody, and not looked for at first.
    IF _spec.key IS NULL AND NOT _has_join THEN
        _started := durable.insert_execution(_ns, _spec, _op_id, _now);
        IF _started.n IS NOT NULL THEN
            RETURN _started;
        END IF;
    END IF;
    LOOP
        SELECT 'created', e.n, e.id, e.available_at, NULL,
               CASE WHEN durable.is_claimable(e, _now) THEN ARRAY[e.n] ELSE '{}' END INTO _started
        FROM durable.executions AS e JOIN durable.inputs AS i USING (n)
        WHERE e.ns = _ns AND i.create_op = _op_id
            AND (e.id = _spec.id OR e.workflow = _spec.workflow AND e.key = _spec.key AND e.holds_key);
        IF FOUND THEN
            RETURN _started;
        END IF;
        IF _spec.key IS NOT NULL THEN
            SELECT * INTO _same_key FROM durable.executions
            WHERE ns = _ns AND workflow = _spec.workflow AND key = _spec.key AND holds_key FOR UPDATE;
            IF FOUND AND NOT (_spec.reuse_closed_key AND _same_key.state = 'closed') THEN
                RETURN durable.found_as(_same_key, _spec.input, _op_id, _now);
            END IF;
        END IF;
        SELECT (durable.found_as(e, _spec.input, _op_id, _now)).* INTO _started FROM durable.executions AS e
        WHERE ns = _ns AND id = _spec.id;
        IF FOUND THEN
            RETURN _started;
        END IF;
        IF _has_join THEN
            _started := durable.join_group(_ns, _spec, _op_id, _now);
        ELSE
            IF _same_key.n IS NOT NULL THEN
                UPDATE durable.executions SET holds_key = false WHERE n = _same_key.n;
            END IF;
            _started := durable.insert_execution(_ns, _spec, _op_id, _now);
        END IF;
        IF _started.n IS NOT NULL THEN
            RETURN _started;
        END IF;
    END LOOP;
END $$;

-- An execution that is in the way: of somebody else, or, where the same call was sent twice at once, the one it made.
CREATE FUNCTION durable.found_as(_head durable.executions, _input bytea, _op_id text, _now bigint)
RETURNS durable.started LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN is_same THEN 'created' ELSE 'exists' END, _head.n, _head.id, _head.available_at,
           coalesce(first_input, input) = _input,
           CASE WHEN is_same AND durable.is_claimable(_head, _now) THEN ARRAY[_head.n] ELSE '{}' END
    FROM (SELECT *, create_op = _op_id AS is_same FROM durable.inputs WHERE n = _head.n) AS i
$$;

-- Join the execution that is pending for a group, or be the next one that is.
CREATE FUNCTION durable.join_group(_ns integer, _spec durable.spec, _op_id text, _now bigint) RETURNS durable.started
LANGUAGE plpgsql AS $$
DECLARE
    _join durable.joining := _spec.joins;
    _pending durable.executions;
    _started durable.started;
    _effects bigint[] := '{}';
    _n bigint;
    _items bigint;
    _at bigint;
BEGIN
    INSERT INTO durable.pending (ns, "group", n) VALUES (_ns, _join."group", NULL)
    ON CONFLICT (ns, "group") DO UPDATE SET n = pending.n RETURNING n INTO _n;   -- locks the group
    SELECT * INTO _pending FROM durable.executions
    WHERE n = _n AND state = 'ready' AND started_at IS NULL AND available_at > _now FOR UPDATE;
    IF FOUND THEN
        SELECT items INTO _items FROM durable.inputs WHERE n = _n;
        IF _join.size IS NULL OR _items + _join.items <= _join.size THEN
            IF _join.size IS NULL THEN
                UPDATE durable.inputs SET input = _spec.input, cause = _spec.cause WHERE n = _n;
                _at := least(_now + _join.wait_ms, _pending.created_at + _join.most_ms);
            ELSE
                UPDATE durable.inputs SET input = input || '\x0a' || _spec.input, items = items + _join.items,
                    cause = CASE WHEN cause = '' THEN _spec.cause ELSE cause || '\x0a' || _spec.cause END
                WHERE n = _n;
                _at := CASE WHEN _items + _join.items >= _join.size THEN _now ELSE _pending.available_at END;
            END IF;
            _started.effects := durable.make_ready(_n, _at, _now, false);
            SELECT 'joined', n, id, available_at INTO _started.kind, _started.n, _started.id, _started.available_at
            FROM durable.executions WHERE n = _n;
            INSERT INTO durable.joined (ns, op_id, n, available_at)
            VALUES (_ns, _op_id, _n, _started.available_at);
            RETURN _started;
        END IF;
        _effects := durable.make_ready(_n, _now, _now, false);
    END IF;
    _spec.delay_ms := CASE WHEN _join.size IS NOT NULL AND _join.items >= _join.size THEN 0 ELSE _join.wait_ms END;
    _started := durable.insert_execution(_ns, _spec, _op_id, _now);
    IF _started.n IS NOT NULL THEN
        UPDATE durable.pending SET n = _started.n WHERE ns = _ns AND "group" = _join."group";
        _started.effects := _effects || _started.effects;
    END IF;
    RETURN _started;
END $$;

CREATE FUNCTION durable.create_execution(_ns integer, _request durable.request, _now bigint) RETURNS durable.answer
LANGUAGE plpgsql AS $$
DECLARE
    _started durable.started := durable.start(_ns, _request.spec, _request.op_id, _now);
    _answer durable.answer;
BEGIN
    _answer.code := _started.kind;
    _answer.id := _started.id;
    _answer.at := _started.available_at;
    _answer.is_so := _started.same_input;
    IF _started.kind = 'created' AND (cardinality(_started.effects) > 1 OR jsonb_array_length((_request.spec).gates) > 0) THEN
        _answer.touched := durable.touched(_started.effects);
        _answer.next_at := durable.gates_open_at(_ns);
    END IF;
    _answer.bells := durable.bells(_started.effects);
    RETURN _answer;
END $$;

CREATE FUNCTION durable.claim(_ns integer, _request durable.request, _now bigint) RETURNS durable.answer
LANGUAGE plpgsql AS $$
DECLARE
    _head durable.executions;
    _answer durable.answer;
BEGIN
    SELECT * INTO _head FROM durable.executions WHERE ns = _ns AND id = _request.id FOR UPDATE;
    IF NOT FOUND THEN
        _answer.code := 'not claimed';
        RETURN _answer;
    END IF;
    IF _head.nonce IS DISTINCT FROM _request.nonce THEN
        IF _head.state <> 'ready' OR _head.bell IN (3, 4) OR _head.available_at > _now THEN
            _answer.code := 'not claimed';
            _answer.state := _head.state;
            RETURN _answer;
        END IF;
        UPDATE durable.executions SET state = 'owned', status = 'running', nonce = _request.nonce,
            worker = _request.worker, owned_at = _now, started_at = coalesce(started_at, _now), bell = -1,
            ring_at = NULL, wake_at = NULL, result = NULL, error = NULL, code = NULL
        WHERE n = _head.n RETURNING * INTO _head;
    END IF;
    _answer.code := 'claimed';
    _answer.shown := durable.show(_head);
    _answer.is_so := _head.ver > 0 AND _head.op_id IS NOT DISTINCT FROM _request.have_op;
    IF NOT _answer.is_so AND _head.records > 0 THEN
        _answer.history := durable.history_of(_head.n);
    END IF;
    IF _head.unread > 0 THEN
        _answer.inbox := durable.unread_of(_head.n, 0);
    END IF;
    RETURN _answer;
END $$;

-- What the view shows of one that stands in no line.
CREATE FUNCTION durable.show(_head durable.executions) RETURNS durable.shown LANGUAGE plpgsql AS $$
DECLARE
    _shown durable.shown;
BEGIN
    SELECT _head.ns, _head.n, _head.id, _head.workflow, _head.version, _head.queue, _head.priority, _head.key, i.tags,
           i.options, i.input, _head.parent_id, _head.state, _head.status, _head.attempt, _head.generation, _head.ver,
           _head.op_id, _head.nonce, _head.worker, _head.crashes, _head.inbox_seq, _head.created_at,
           _head.available_at, _head.started_at, _head.finished_at, _head.wake_at, _head.deadline_at, _head.result,
           _head.error, _head.code, NULL, i.cause
    INTO _shown FROM durable.inputs AS i WHERE i.n = _head.n;
    RETURN _shown;
END $$;

CREATE FUNCTION durable.history_of(_n bigint) RETURNS durable.record[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT array_agg((
            step_id, kind, name, status, data, attempts, started_at, finished_at, wake_at, seq
        )::durable.record ORDER BY seq) FROM durable.checkpoints WHERE n = _n
    );
END $$;

CREATE FUNCTION durable.unread_of(_n bigint, _seen bigint) RETURNS durable.entry[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT array_agg((seq, id, kind, name, data, at, consumed_by)::durable.entry ORDER BY seq)
        FROM durable.inbox WHERE n = _n AND consumed_by IS NULL AND seq > _seen
    );
END $$;

CREATE FUNCTION durable.commit(_ns integer, _request durable.request, _now bigint) RETURNS durable.answer
LANGUAGE plpgsql AS $$
DECLARE
    _head durable.executions;
    _answer durable.answer;
    _effects bigint[] := '{}';
    _out durable.sending;
    _count bigint;
    _is_urgent boolean;
BEGIN
    SELECT * INTO _head FROM durable.executions WHERE ns = _ns AND id = _request.id FOR UPDATE;
    IF NOT FOUND THEN
        _answer.code := 'fenced';
        RETURN _answer;
    END IF;
    IF _head.op_id = _request.op_id AND _head.ver > 0 THEN
        RETURN durable.answer_again(_ns, _head, _request);
    END IF;
    IF _head.nonce IS DISTINCT FROM _request.nonce THEN
        _answer.code := 'fenced';
        RETURN _answer;
    END IF;
    IF _head.ver <> _request.ver OR (_request.written > 0 AND _head.records > 0 AND EXISTS (
        SELECT 1 FROM unnest(_request.records) AS r JOIN durable.checkpoints AS c ON c.n = _head.n AND c.step_id = r.step_id
        WHERE c.status NOT IN ('open', 'retrying') AND NOT r.step_id = ANY(_request.drops)
    )) THEN
        _answer.code := 'diverged';
        RETURN _answer;
    END IF;
    IF cardinality(_request.outs) > 0 OR _head.records + _request.written > 10000 THEN
        _answer := durable.above_a_limit(_ns, _head, _request);
        IF _answer.code IS NOT NULL THEN
            RETURN _answer;
        END IF;
    END IF;

    IF cardinality(_request.drops) > 0 THEN
        DELETE FROM durable.checkpoints WHERE n = _head.n AND step_id = ANY(_request.drops);
        GET DIAGNOSTICS _count = ROW_COUNT;
        _head.records := _head.records - _count;
        IF _head.timers > 0 THEN
            DELETE FROM durable.timers WHERE n = _head.n AND step_id = ANY(_request.drops);
        END IF;
    END IF;
    IF _request.written > 0 THEN
        INSERT INTO durable.checkpoints (
            n, step_id, seq, kind, name, status, data, attempts, started_at, finished_at, wake_at
        )
        SELECT _head.n, step_id, _head.history_seq + seq, kind, name, status, data, attempts, started_at, finished_at,
               wake_at
        FROM unnest(_request.records)
        ON CONFLICT (n, step_id) DO UPDATE
        SET seq = excluded.seq, kind = excluded.kind, name = excluded.name, status = excluded.status,
            data = excluded.data, attempts = excluded.attempts, started_at = excluded.started_at,
            finished_at = excluded.finished_at, wake_at = excluded.wake_at;
        IF _head.timers > 0 THEN
            DELETE FROM durable.timers AS t USING unnest(_request.records) AS r
            WHERE t.n = _head.n AND t.step_id = r.step_id;
        END IF;
        IF _request.has_timers THEN
            INSERT INTO durable.timers (n, step_id, ns, at, seq)
            SELECT _head.n, step_id, _ns, wake_at, _head.history_seq + seq FROM unnest(_request.records)
            WHERE wake_at IS NOT NULL AND status IN ('open', 'retrying');
        END IF;
        _head.history_seq := _head.history_seq + _request.written;
        _head.records := _head.records + _request.written;
    END IF;
    IF _head.timers > 0 OR _request.has_timers THEN
        SELECT count(*) INTO _head.timers FROM durable.timers WHERE n = _head.n AND step_id <> '__timeout';
    END IF;
    IF cardinality(_request.consumed) > 0 THEN
        UPDATE durable.inbox AS i SET consumed_by = c.consumer
        FROM unnest(_request.consumed, _request.consumers) AS c (seq, consumer)
        WHERE i.n = _head.n AND i.seq = c.seq AND i.consumed_by IS NULL;
        GET DIAGNOSTICS _count = ROW_COUNT;
        _head.unread := _head.unread - _count;
    END IF;
    IF cardinality(_request.names) > 0 THEN
        INSERT INTO durable.named_values (n, name, data)
        SELECT _head.n, name, data FROM unnest(_request.names, _request.datas) AS v (name, data)
        ON CONFLICT (n, name) DO UPDATE SET data = excluded.data;
    END IF;
    IF cardinality(_request.outs) > 0 THEN
        UPDATE durable.executions SET unread = _head.unread, records = _head.records, timers = _head.timers,
            history_seq = _head.history_seq
        WHERE n = _head.n;
        FOREACH _out IN ARRAY _request.outs LOOP
            _effects := _effects || durable.send_out(_ns, _head.n, _out, _request.op_id, _now);
        END LOOP;
        SELECT * INTO _head FROM durable.executions WHERE n = _head.n;
    END IF;

    _answer.code := 'committed';
    _answer.number := _head.ver + 1;
    _answer.is_so := false;
    IF _head.unread > 0 AND _head.inbox_seq > _request.seen THEN
        _answer.inbox := durable.unread_of(_head.n, _request.seen);
    END IF;
    IF _request.next = 'run' OR (_request.next = 'park' AND _answer.inbox IS NOT NULL) THEN
        UPDATE durable.executions SET ver = ver + 1, op_id = _request.op_id, crashes = 0, unread = _head.unread,
            records = _head.records, timers = _head.timers, history_seq = _head.history_seq
        WHERE n = _head.n;
        _answer.is_so := true;
    ELSIF _request.next = 'park' THEN
        _effects := _effects || durable.leave(_head, false, _now);
        UPDATE durable.executions SET ver = ver + 1, op_id = _request.op_id, crashes = 0, unread = _head.unread,
            records = _head.records, timers = _head.timers, history_seq = _head.history_seq,
            state = 'parked', status = _request.status, nonce = NULL, worker = NULL, owned_at = NULL, bell = -1,
            ring_at = NULL, wake_at = _request.at
        WHERE n = _head.n;
    ELSIF _request.next = 'close' THEN
        _effects := _effects || durable.leave(_head, false, _now) || -_head.n;
        UPDATE durable.executions SET ver = ver + 1, op_id = _request.op_id, crashes = 0, unread = _head.unread,
            records = _head.records, history_seq = _head.history_seq, timers = 0,
            state = 'closed', status = _request.status, nonce = NULL, worker = NULL, owned_at = NULL,
            wake_at = NULL, bell = -1, ring_at = NULL, finished_at = _now,
            result = _request.result, error = _request.error, code = _request.code
        WHERE n = _head.n RETURNING * INTO _head;
        _effects := _effects || durable.ended(_head, _now);
    ELSE
        UPDATE durable.executions SET ver = ver + 1, op_id = _request.op_id, crashes = 0, unread = _head.unread,
            records = _head.records, timers = _head.timers, history_seq = _head.history_seq
        WHERE n = _head.n RETURNING * INTO _head;
        _is_urgent := _head.urgent_seq > _request.seen AND _head.unread > 0 AND EXISTS (
            SELECT 1 FROM durable.inbox WHERE n = _head.n AND consumed_by IS NULL AND seq > _request.seen AND urgent
        );
        CASE _request.next
            WHEN 'block' THEN
                _effects := _effects || durable.leave(_head, false, _now);
                UPDATE durable.executions SET state = 'blocked', status = _request.status, nonce = NULL,
                    worker = NULL, owned_at = NULL, bell = -1, ring_at = NULL, wake_at = NULL, result = NULL,
                    error = _request.error, code = _request.code
                WHERE n = _head.n;
                IF _is_urgent THEN
                    _effects := _effects || durable.make_ready(_head.n, _now, _now, false);
                END IF;
            WHEN 'ready' THEN
                UPDATE durable.executions SET status = _request.status, attempt = _request.attempt WHERE n = _head.n;
                _effects := _effects || durable.make_ready(
                    _head.n, CASE WHEN _is_urgent THEN _now ELSE _request.at END, _now, false
                );
            WHEN 'continue' THEN
                _effects := _effects || durable.restart(_ns, _head.n, _request.result, _now);
        END CASE;
    END IF;
    IF _effects = ARRAY[-_head.n] THEN   -- it has ended, and nobody else is concerned
        _answer.touched := ARRAY[_head.id];
    ELSIF cardinality(_effects) > 0 THEN
        _answer.bells := durable.bells(_effects);
        _answer.touched := durable.touched(_effects);
    END IF;
    IF _head.seeks OR cardinality(_request.outs) > 0 OR cardinality(_effects) > 1 THEN
        _answer.next_at := durable.gates_open_at(_ns);
    END IF;
    RETURN _answer;
END $$;

-- The answer to the last accepted commit, as far as what is stored tells. Who is ready still may be rung again.
CREATE FUNCTION durable.answer_again(_ns integer, _head durable.executions, _request durable.request)
RETURNS durable.answer LANGUAGE plpgsql AS $$
DECLARE
    _answer durable.answer;
    _effects bigint[];
BEGIN
    _answer.code := 'committed';
    _answer.number := _head.ver;
    _answer.is_so := _head.nonce IS NOT DISTINCT FROM _request.nonce;
    _answer.inbox := durable.unread_of(_head.n, _request.seen);
    SELECT coalesce(array_agg(e.n), '{}') INTO _effects
    FROM unnest(_request.outs) AS o
    JOIN durable.executions AS e ON e.ns = _ns AND e.id = CASE o.kind WHEN 'start' THEN (o.spec).id ELSE o.target END
    WHERE o.kind IN ('start', 'post') AND durable.is_claimable(e, durable.now_ms());
    IF durable.is_claimable(_head, durable.now_ms()) THEN
        _effects := _head.n || _effects;
    END IF;
    _answer.bells := durable.bells(_effects);
    SELECT array_agg(o.target) INTO _answer.touched FROM unnest(_request.outs) AS o WHERE o.kind = 'post';
    IF _head.state = 'closed' THEN
        _answer.touched := _answer.touched || _head.id;
    END IF;
    RETURN _answer;
END $$;

-- Without a code: nothing is above a limit.
CREATE FUNCTION durable.above_a_limit(_ns integer, _head durable.executions, _request durable.request)
RETURNS durable.answer LANGUAGE plpgsql AS $$
DECLARE
    _answer durable.answer;
    _count bigint;
BEGIN
    IF _head.records + _request.written > 10000 AND _request.next <> 'continue' THEN
        SELECT count(*) INTO _count FROM (
            SELECT step_id FROM durable.checkpoints WHERE n = _head.n AND NOT step_id = ANY(_request.drops)
            UNION SELECT step_id FROM unnest(_request.records)
        ) AS written;
        IF _count > 10000 THEN
            _answer.code := 'full';
            _answer.state := 'checkpoints';
            _answer.size := _count;
            RETURN _answer;
        END IF;
    END IF;
    SELECT max(e.unread + p.number) INTO _count FROM (
        SELECT o.target, count(*) AS number FROM unnest(_request.outs) AS o
        WHERE o.kind = 'post' AND (o.message).kind = 'signal' GROUP BY o.target
    ) AS p JOIN durable.executions AS e ON e.ns = _ns AND e.id = p.target WHERE e.unread + p.number > 10000;
    IF _count IS NOT NULL THEN
        _answer.code := 'full';
        _answer.state := 'inbox';
        _answer.size := _count;
    END IF;
    RETURN _answer;
END $$;

CREATE FUNCTION durable.send_out(_ns integer, _n bigint, _out durable.sending, _op_id text, _now bigint)
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    _target durable.executions;
BEGIN
    CASE _out.kind
        WHEN 'start' THEN
            RETURN (durable.start(_ns, _out.spec, _op_id, _now)).effects;
        WHEN 'post' THEN
            SELECT * INTO _target FROM durable.executions WHERE ns = _ns AND id = _out.target FOR UPDATE;
            IF NOT FOUND OR (_target.state = 'closed' AND (_out.message).reach <> 'closed') OR EXISTS (
                SELECT 1 FROM durable.message_ids WHERE n = _target.n AND id = (_out.message).id
            ) THEN
                RETURN '{}';
            END IF;
            RETURN durable.post_new(_target.n, _out.message, _now);
        WHEN 'watch' THEN
            RETURN durable.watch(_ns, _n, _out.target, _out.step_id, _now);
        WHEN 'emit' THEN
            RETURN (durable.emit(_ns, _out.emit, _op_id, _now))._effects;
        WHEN 'listen' THEN
            RETURN durable.listen(_ns, _n, _out.listen, _now);
        WHEN 'unlisten' THEN
            DELETE FROM durable.listeners WHERE n = _n AND event = _out.target AND step_id = _out.step_id;
            RETURN '{}';
        WHEN 'seek' THEN
            DECLARE
                _effects bigint[] := durable.free(_ns, _n, _out.step_id, _now);
            BEGIN
                PERFORM durable.save_seeker(_ns, _n, _out.step_id, _out.gates, _out.message_id);
                RETURN _effects || durable.seek(_n, _out.step_id, _now);
            END;
        WHEN 'free' THEN
            RETURN durable.free(_ns, _n, _out.step_id, _now);
    END CASE;
END $$;

CREATE FUNCTION durable.post(_ns integer, _request durable.request, _now bigint) RETURNS durable.answer
LANGUAGE plpgsql AS $$
DECLARE
    _message durable.message := _request.message;
    _head durable.executions;
    _answer durable.answer;
    _effects bigint[];
BEGIN
    SELECT * INTO _head FROM durable.executions WHERE ns = _ns AND id = _request.id FOR UPDATE;
    _answer.code := 'not posted';
    _answer.is_so := false;
    IF NOT FOUND THEN
        RETURN _answer;
    END IF;
    _answer.state := _head.state;
    IF EXISTS (SELECT 1 FROM durable.message_ids WHERE n = _head.n AND id = _message.id) THEN
        _answer.is_so := true;
        RETURN _answer;
    END IF;
    IF _head.state = 'closed' AND _message.reach <> 'closed' THEN
        RETURN _answer;
    END IF;
    IF _head.unread >= 10000 AND _message.kind = 'signal' THEN
        _answer.code := 'full';
        RETURN _answer;
    END IF;
    _effects := durable.post_new(_head.n, _message, _now);
    SELECT inbox_seq, state = 'closed' INTO _answer.number, _answer.is_so FROM durable.executions WHERE n = _head.n;
    _answer.code := 'posted';
    _answer.bells := durable.bells(_effects);
    _answer.next_at := durable.gates_open_at(_ns);
    RETURN _answer;
END $$;

-- What a turn of an event loop asks for, in one transaction. The executions concerned are locked in one order, those
-- that others watch and their watchers too, so that two transactions do not wait for each other; where that
-- cannot be known beforehand they may, and one of them is told to try again. `_patience_ms`: how long to wait for each
-- lock; NULL: for as long as the session says.
CREATE FUNCTION durable.serve(
    _ns integer, _requests durable.request[], _ids text[], _gated boolean, _patience_ms integer
) RETURNS SETOF durable.answer LANGUAGE plpgsql
SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    _request durable.request;
    _answer durable.answer;
    _now bigint;
    _numbers bigint[];
    _seeks boolean;
BEGIN
    IF _patience_ms IS NOT NULL THEN
        PERFORM set_config('lock_timeout', _patience_ms::text, true);
    END IF;
    -- One by one: of a list of ids a plan may make a filter, and read the namespace for it.
    SELECT array_agg(e.n), bool_or(e.seeks) INTO _numbers, _seeks
    FROM unnest(_ids) AS wanted (id) CROSS JOIN LATERAL (
        SELECT n, seeks FROM durable.executions WHERE ns = _ns AND id = wanted.id LIMIT 1
    ) AS e;
    IF _gated OR _seeks THEN
        PERFORM durable.lock_gates(_ns);
    END IF;
    IF cardinality(_numbers) > 1 THEN
        PERFORM 1 FROM durable.executions WHERE n = ANY(_numbers) ORDER BY n FOR UPDATE;
    END IF;
    FOREACH _request IN ARRAY _requests LOOP
        _now := durable.now_ms();
        CASE _request.verb
            WHEN 'commit' THEN _answer := durable.commit(_ns, _request, _now);
            WHEN 'create' THEN _answer := durable.create_execution(_ns, _request, _now);
            WHEN 'claim' THEN _answer := durable.claim(_ns, _request, _now);
            WHEN 'post' THEN _answer := durable.post(_ns, _request, _now);
            WHEN 'get' THEN
                _answer := NULL;
                SELECT s INTO _answer.shown FROM durable.shown AS s WHERE s.ns = _ns AND s.id = _request.id;
        END CASE;
        _answer.now := _now;
        RETURN NEXT _answer;
    END LOOP;
END $$;

CREATE FUNCTION durable.send(_ns integer, _emits durable.emitting[], _op_id text)
RETURNS TABLE (receipts jsonb, bells durable.bell[], touched text[], next_at bigint) LANGUAGE plpgsql
SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    _emit durable.emitting;
    _sent record;
    _effects bigint[] := '{}';
    _receipts jsonb := '[]';
    _number integer := 0;
    _now bigint := durable.now_ms();
BEGIN
    FOREACH _emit IN ARRAY _emits LOOP
        SELECT * INTO _sent FROM durable.emit(_ns, _emit, _op_id || ':' || _number, _now);
        _effects := _effects || _sent._effects;
        _receipts := _receipts || jsonb_build_array(jsonb_build_array(to_jsonb(_sent._ids), _sent._is_duplicate));
        _number := _number + 1;
    END LOOP;
    RETURN QUERY SELECT _receipts, durable.bells(_effects), durable.touched(_effects), durable.gates_open_at(_ns);
END $$;

-- NULL in `ver`: the schedule is not as it was read, and nothing was done.
CREATE FUNCTION durable.save_schedule(
    _ns integer, _id text, _data bytea, _next_at bigint, _ver bigint, _op_id text, _starts durable.spec[]
) RETURNS TABLE (ver bigint, execution_ids text[], bells durable.bell[], touched text[], next_at bigint)
LANGUAGE plpgsql SET search_path = durable, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    _stored durable.schedules;
    _spec durable.spec;
    _started durable.started;
    _effects bigint[] := '{}';
    _ids text[] := '{}';
    _now bigint := durable.now_ms();
BEGIN
    IF _ver = 0 THEN
        INSERT INTO durable.schedules (ns, id, data, ver, op_id, execution_ids)
        VALUES (_ns, _id, _data, 0, '', '{}') ON CONFLICT DO NOTHING;
    END IF;
    SELECT * INTO _stored FROM durable.schedules AS s WHERE s.ns = _ns AND s.id = _id FOR UPDATE;
    IF _stored.op_id = _op_id THEN
        RETURN QUERY SELECT _stored.ver, _stored.execution_ids, NULL::durable.bell[], NULL::text[], NULL::bigint;
        RETURN;
    END IF;
    IF _stored.ver IS DISTINCT FROM _ver THEN
        RETURN;
    END IF;
    FOREACH _spec IN ARRAY _starts LOOP
        _started := durable.start(_ns, _spec, _op_id || ':' || cardinality(_ids), _now);
        _ids := _ids || _started.id;
        _effects := _effects || _started.effects;
    END LOOP;
    UPDATE durable.schedules AS s
    SET data = _data, next_at = _next_at, ver = s.ver + 1, op_id = _op_id, execution_ids = _ids
    WHERE s.ns = _ns AND s.id = _id;
    RETURN QUERY SELECT _ver + 1, _ids, durable.bells(_effects), durable.touched(_effects), durable.gates_open_at(_ns);
END $$;
