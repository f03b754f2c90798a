-- The moves of executions. What may happen is decided by the verbs; here it happens, and none of it can be refused.
--
-- What a move means for others is an array of numbers: that of an execution which became claimable and is to be rung,
-- and the negative of one to which something came and which is to be hinted.
--
-- What is called often is in PL/pgSQL also where one expression would do: only there plans are kept from call to call.

CREATE FUNCTION durable.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

CREATE FUNCTION durable.is_claimable(_head durable.executions, _now bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT _head.state = 'ready' AND _head.bell NOT IN (3, 4) AND _head.available_at <= _now
$$;

CREATE FUNCTION durable.bells(_effects bigint[]) RETURNS durable.bell[] LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(_effects) = 1 THEN
        RETURN (
            SELECT ARRAY[(id, workflow, version, queue, priority, crashes, available_at)::durable.bell]
            FROM durable.executions WHERE n = _effects[1]
        );
    END IF;
    RETURN (
        SELECT array_agg(
            (e.id, e.workflow, e.version, e.queue, e.priority, e.crashes, e.available_at)::durable.bell
            ORDER BY f.place
        )
        FROM (
            SELECT n, min(place) AS place FROM unnest(_effects) WITH ORDINALITY AS u (n, place) GROUP BY n
        ) AS f
        JOIN durable.executions AS e USING (n)
    );
END $$;

CREATE FUNCTION durable.touched(_effects bigint[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT array_agg(e.id ORDER BY f.place)
        FROM (SELECT -n AS n, min(place) AS place FROM unnest(_effects) WITH ORDINALITY AS u (n, place) GROUP BY n) AS f
        JOIN durable.executions AS e USING (n)
    );
END $$;

-- How an execution ended, as its watchers are told: see `Outcome.pack`.
CREATE FUNCTION durable.outcome(_status text, _workflow text, _attempt bigint, _data bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT convert_to(format(E'%s %s %s\n', _status, _workflow, _attempt), 'UTF8') || coalesce(_data, '')
$$;

-- Put a message into the inbox.
CREATE FUNCTION durable.append(_n bigint, _message durable.message, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _seq bigint;
    _urgent boolean := _message.reach <> 'parked';
BEGIN
    UPDATE durable.executions SET inbox_seq = inbox_seq + 1, unread = unread + 1,
        urgent_seq = CASE WHEN _urgent THEN inbox_seq + 1 ELSE urgent_seq END
    WHERE n = _n RETURNING inbox_seq INTO _seq;
    INSERT INTO durable.inbox (n, seq, id, kind, name, data, at, urgent)
    VALUES (_n, _seq, _message.id, _message.kind, _message.name, _message.data, _now, _urgent);
    RETURN ARRAY[-_n];
END $$;

-- Put a message into the inbox, and wake the execution if its state is within reach.
CREATE FUNCTION durable.deliver(_n bigint, _message durable.message, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _head durable.executions;
    _wakes boolean;
    _effects bigint[];
BEGIN
    SELECT * INTO _head FROM durable.executions WHERE n = _n FOR UPDATE;
    _effects := durable.append(_n, _message, _now);
    CASE _head.state
        WHEN 'parked' THEN _wakes := true;
        WHEN 'owned' THEN _wakes := false;
        WHEN 'ready' THEN
            _wakes := _message.reach <> 'parked' AND (_head.bell IN (3, 4) OR _head.available_at > _now);
        WHEN 'blocked' THEN _wakes := _message.reach <> 'parked';
        ELSE _wakes := _message.reach = 'closed';
    END CASE;
    IF _wakes THEN
        _effects := _effects || durable.make_ready(
            _n, _now, _now, _head.bell IN (3, 4) AND _message.reach <> 'parked'
        );
    END IF;
    RETURN _effects;
END $$;

-- Deliver a message that is not there yet; a cancel of what was never claimed ends it.
CREATE FUNCTION durable.post_new(_n bigint, _message durable.message, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _is_unclaimed boolean;
BEGIN
    INSERT INTO durable.message_ids (n, id) VALUES (_n, _message.id);
    IF _message.kind = 'cancel' THEN
        SELECT state = 'ready' AND started_at IS NULL INTO _is_unclaimed FROM durable.executions WHERE n = _n;
        IF _is_unclaimed THEN
            RETURN durable.append(_n, _message, _now)
                || durable.close(_n, 'cancelled', NULL, _message.data, NULL, _now);
        END IF;
    END IF;
    RETURN durable.deliver(_n, _message, _now);
END $$;

CREATE FUNCTION durable.post_once(_n bigint, _message durable.message, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM durable.executions WHERE n = _n AND state <> 'closed' FOR UPDATE;
    IF NOT FOUND OR EXISTS (SELECT 1 FROM durable.message_ids WHERE n = _n AND id = _message.id) THEN
        RETURN '{}';
    END IF;
    RETURN durable.post_new(_n, _message, _now);
END $$;

-- Tell a watcher the end of its target. A consumed entry of the same id is no duplicate: a later attempt of the run may
-- wait for that end again.
CREATE FUNCTION durable.tell(_watcher bigint, _target text, _step text, _outcome bytea, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _id text := 'watch:' || _target || ':' || _step;
BEGIN
    PERFORM 1 FROM durable.executions WHERE n = _watcher AND state <> 'closed' FOR UPDATE;
    IF NOT FOUND
        OR EXISTS (SELECT 1 FROM durable.inbox WHERE n = _watcher AND consumed_by IS NULL AND id = _id)
    THEN
        RETURN '{}';
    END IF;
    RETURN durable.deliver(_watcher, (_id, 'child', _step, _outcome, 'parked')::durable.message, _now);
END $$;

-- Let an execution know the end of another one, now or when that comes.
CREATE FUNCTION durable.watch(_ns integer, _n bigint, _target text, _step text, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _head durable.executions;
BEGIN
    SELECT * INTO _head FROM durable.executions WHERE ns = _ns AND id = _target FOR UPDATE;
    IF NOT FOUND THEN
        RETURN durable.tell(_n, _target, _step, durable.outcome('missing', '-', 0, ''), _now);
    END IF;
    IF _head.state = 'closed' THEN
        RETURN durable.tell(_n, _target, _step, durable.end_of(_head), _now);
    END IF;
    INSERT INTO durable.watchers (target, watcher, step_id) VALUES (_head.n, _n, _step) ON CONFLICT DO NOTHING;
    RETURN '{}';
END $$;

CREATE FUNCTION durable.end_of(_head durable.executions) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT durable.outcome(_head.status, _head.workflow, _head.attempt,
                           CASE WHEN _head.status = 'completed' THEN _head.result ELSE _head.error END)
$$;

-- From state to state

-- Let it be claimed from an instant on, when it has passed its gates; `_passes`: whatever gates it has, with what it
-- holds. It goes on showing the status that it has, unless it had ended.
CREATE FUNCTION durable.make_ready(_n bigint, _at bigint, _now bigint, _passes boolean) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _head durable.executions;
    _effects bigint[];
    _bell smallint;
BEGIN
    SELECT * INTO _head FROM durable.executions WHERE n = _n;
    _effects := durable.leave(_head, _passes, _now);
    IF _head.seeks AND NOT _passes AND EXISTS (SELECT 1 FROM durable.seekers WHERE n = _n AND step_id = '') THEN
        _bell := CASE WHEN _at > _now THEN 3 ELSE 4 END;
    ELSE
        _bell := CASE WHEN _at > _now THEN 2 ELSE 0 END;
    END IF;
    UPDATE durable.executions SET state = 'ready', nonce = NULL, worker = NULL, owned_at = NULL, wake_at = NULL,
        available_at = greatest(_at, _now), bell = _bell,
        ring_at = CASE WHEN _bell > 0 THEN greatest(_at, _now) END,
        status = CASE WHEN state = 'closed' THEN 'pending' ELSE status END,
        deadline_at = CASE WHEN state = 'closed' THEN NULL ELSE deadline_at END,
        finished_at = NULL,
        result = CASE WHEN state = 'closed' THEN NULL ELSE result END,
        error = CASE WHEN state = 'closed' THEN NULL ELSE error END,
        code = CASE WHEN state = 'closed' THEN NULL ELSE code END
    WHERE n = _n;
    IF _bell = 4 THEN
        RETURN _effects || durable.seek_own(_n, _now);
    END IF;
    RETURN CASE WHEN _bell = 0 THEN _effects || _n ELSE _effects END;
END $$;

-- Give back what an owner holds, unless it keeps it, and stand in no line.
CREATE FUNCTION durable.leave(_head durable.executions, _keeps_slots boolean, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _head.seeks THEN
        RETURN '{}';
    END IF;
    IF _head.bell = 4 THEN
        PERFORM durable.lock_gates(_head.ns);
        DELETE FROM durable.line WHERE n = _head.n AND step_id = '';
    ELSIF _head.state = 'owned' AND NOT _keeps_slots THEN
        RETURN durable.advance(_head.ns, durable.give_back(_head.ns, _head.n, '', false), _now);
    END IF;
    RETURN '{}';
END $$;

-- End it.
CREATE FUNCTION durable.close(
    _n bigint, _status text, _result bytea, _error bytea, _code text, _now bigint
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    _head durable.executions;
    _effects bigint[];
BEGIN
    SELECT * INTO _head FROM durable.executions WHERE n = _n;
    _effects := durable.leave(_head, false, _now) || -_n;
    UPDATE durable.executions SET state = 'closed', status = _status, nonce = NULL, worker = NULL, owned_at = NULL,
        wake_at = NULL, bell = -1, ring_at = NULL, finished_at = _now, timers = 0,
        result = _result, error = _error, code = _code
    WHERE n = _n RETURNING * INTO _head;
    RETURN _effects || durable.ended(_head, _now);
END $$;

-- What has ended: its timers are deleted, its slots given back, it listens no more, and its watchers are told.
CREATE FUNCTION durable.ended(_head durable.executions, _now bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    _effects bigint[] := '{}';
    _end bytea;
    _each record;
BEGIN
    IF _head.deadline_at IS NOT NULL OR _head.history_seq > 0 THEN
        DELETE FROM durable.timers WHERE n = _head.n;
    END IF;
    DELETE FROM durable.listeners WHERE n = _head.n;
    IF _head.seeks THEN
        _effects := _effects || durable.free_steps(_head.ns, _head.n, true, _now);
    END IF;
    FOR _each IN
        WITH told AS (DELETE FROM durable.watchers WHERE target = _head.n RETURNING watcher, step_id, turn)
        SELECT watcher, step_id FROM told ORDER BY turn
    LOOP
        _end := coalesce(_end, durable.end_of(_head));
        _effects := _effects || durable.tell(_each.watcher, _head.id, _each.step_id, _end, _now);
    END LOOP;
    RETURN _effects;
END $$;

-- Let it begin anew; unread messages and the deadline stay.
CREATE FUNCTION durable.restart(_ns integer, _n bigint, _input bytea, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _effects bigint[];
BEGIN
    DELETE FROM durable.listeners WHERE n = _n AND cancel IS NULL;
    _effects := durable.free_steps(_ns, _n, false, _now);
    DELETE FROM durable.checkpoints WHERE n = _n;
    DELETE FROM durable.timers WHERE n = _n AND step_id <> '__timeout';
    DELETE FROM durable.inbox WHERE n = _n AND consumed_by IS NOT NULL;
    DELETE FROM durable.named_values WHERE n = _n;
    UPDATE durable.inputs SET first_input = coalesce(first_input, input), input = _input WHERE n = _n;
    UPDATE durable.executions
    SET records = 0, timers = 0, generation = generation + 1, attempt = 1, status = 'pending'
    WHERE n = _n;
    RETURN _effects || durable.make_ready(_n, _now, _now, false);
END $$;

-- Deliver the message of a timer that was deleted.
CREATE FUNCTION durable.fire(_n bigint, _step text, _seq bigint, _now bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _is_timeout boolean := _step = '__timeout';
BEGIN
    IF NOT _is_timeout THEN
        UPDATE durable.executions SET timers = timers - 1 WHERE n = _n;
    END IF;
    RETURN durable.deliver(
        _n,
        ('timer:' || _step || ':' || _seq, 'timer', _step, ''::bytea,
         CASE WHEN _is_timeout THEN 'blocked' ELSE 'parked' END)::durable.message,
        _now
    );
END $$;
