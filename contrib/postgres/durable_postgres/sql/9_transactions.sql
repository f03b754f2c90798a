-- Verbs in a transaction of a user, whose session is set up in ways of its own: what is asked and what is answered are
-- texts, and nothing here depends on what the session says about reading and writing values.

-- Who has read before others wrote would decide on what is no longer so, and a wake-up would be lost.
CREATE FUNCTION durable.check_isolation() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the transaction is % and must be read committed', current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction';
    END IF;
END $$;

-- Hint who waits for what was done here, when the transaction commits: nobody else knows when that is. See `PostgresBus`.
CREATE FUNCTION durable.announce(_channel text, _bells durable.bell[], _ids text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _topics text;
BEGIN
    SELECT string_agg(chr(10) || topic, '') INTO _topics FROM (
        SELECT 'work:' || queue AS topic FROM unnest(_bells) UNION SELECT 'x:' || id FROM unnest(_ids) AS id
    ) AS hinted;
    IF _topics IS NOT NULL THEN
        PERFORM pg_notify(_channel, '-' || CASE WHEN octet_length(_topics) < 7900 THEN _topics ELSE chr(10) || '*' END);
    END IF;
END $$;

-- One `durable.request`; its answer as a JSON object, with the bytes of messages in hexadecimal.
CREATE FUNCTION durable.serve_text(_ns integer, _channel text, _request text, _ids text, _gated boolean) RETURNS text
LANGUAGE plpgsql
SET search_path = durable, pg_temp SET bytea_output = hex SET standard_conforming_strings = on SET array_nulls = on AS $$
DECLARE
    _asked durable.request := _request::durable.request;
    _answer durable.answer;
BEGIN
    PERFORM durable.check_isolation();
    SELECT * INTO _answer FROM durable.serve(_ns, ARRAY[_asked], _ids::text[], _gated, NULL);
    CASE _asked.verb
        WHEN 'create' THEN PERFORM durable.announce(_channel, _answer.bells, _answer.touched);
        WHEN 'post' THEN PERFORM durable.announce(_channel, _answer.bells, ARRAY[_asked.id]);
        ELSE NULL;   -- who commits for an execution knows when, and rings and hints
    END CASE;
    RETURN to_json(_answer);
END $$;

CREATE FUNCTION durable.send_text(_ns integer, _channel text, _emits text, _op_id text) RETURNS text
LANGUAGE plpgsql
SET search_path = durable, pg_temp SET bytea_output = hex SET standard_conforming_strings = on SET array_nulls = on AS $$
DECLARE
    _sent record;
BEGIN
    PERFORM durable.check_isolation();
    SELECT * INTO _sent FROM durable.send(_ns, _emits::durable.emitting[], _op_id);
    PERFORM durable.announce(_channel, _sent.bells, _sent.touched);
    RETURN to_json(_sent);
END $$;
