-- The tables. Children refer to an execution by its number `n`, which grows and is never used again.
--
-- A condition such as `created_at > 0` holds for each row. An index that has it serves only who says so too: as long as
-- a table is small all its indexes look alike, and a plan that is made then, and kept, would look up one row by reading
-- all of its namespace.

CREATE TABLE durable.meta (
    version    integer NOT NULL,
    min_writer integer NOT NULL   -- processes that know less than this version must not write
);
INSERT INTO durable.meta (version, min_writer) VALUES (1, 1);

CREATE TABLE durable.namespaces (
    ns   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE durable.executions (
    n            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ns           integer NOT NULL,
    id           text COLLATE "C" NOT NULL,
    workflow     text COLLATE "C" NOT NULL,
    version      text COLLATE "C" NOT NULL,
    queue        text COLLATE "C" NOT NULL,
    priority     integer NOT NULL,
    key          text COLLATE "C",
    holds_key    boolean NOT NULL,   -- false: there is no key, or a younger execution has it
    parent_id    text COLLATE "C",
    state        text COLLATE "C" NOT NULL,
    status       text COLLATE "C" NOT NULL,
    attempt      bigint NOT NULL DEFAULT 1,
    generation   bigint NOT NULL DEFAULT 0,
    ver          bigint NOT NULL DEFAULT 0,
    op_id        text NOT NULL DEFAULT '',
    nonce        text,
    worker       text,
    crashes      integer NOT NULL DEFAULT 0,
    inbox_seq    bigint NOT NULL DEFAULT 0,   -- the last entry's
    urgent_seq   bigint NOT NULL DEFAULT 0,   -- the last entry's whose message reaches further than a parked execution
    unread       bigint NOT NULL DEFAULT 0,   -- number of entries that nobody has consumed
    history_seq  bigint NOT NULL DEFAULT 0,   -- the last checkpoint's
    records      bigint NOT NULL DEFAULT 0,   -- at least the number of checkpoints
    timers       bigint NOT NULL DEFAULT 0,   -- number of timers of checkpoints
    seeks        boolean NOT NULL DEFAULT false,   -- it or one of its steps seeks gates, or has done so
    created_at   bigint NOT NULL,
    available_at bigint NOT NULL,
    bell         smallint NOT NULL,   -- -1 not ready, 0 to be rung, 1 rung, 2 later, 3 to seek its gates later, 4 in line
    ring_at      bigint,              -- with a bell of 1 to 4
    owned_at     bigint,
    started_at   bigint,
    finished_at  bigint,
    wake_at      bigint,
    deadline_at  bigint,
    result       bytea,
    error        bytea,
    code         text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE UNIQUE INDEX executions_id ON durable.executions (ns, id);
CREATE INDEX executions_created ON durable.executions (ns, created_at, n) WHERE created_at > 0;
CREATE INDEX executions_status ON durable.executions (ns, status, created_at, n) WHERE created_at > 0;
CREATE INDEX executions_workflow ON durable.executions (ns, workflow, created_at, n) WHERE created_at > 0;
CREATE UNIQUE INDEX executions_key ON durable.executions (ns, workflow, key) WHERE holds_key;
CREATE INDEX executions_parent ON durable.executions (ns, parent_id, created_at, n) WHERE parent_id IS NOT NULL;
CREATE INDEX executions_due ON durable.executions (ns, queue, workflow, version, priority DESC, available_at, n)
    WHERE bell = 0;
CREATE INDEX executions_later ON durable.executions (ns, bell, ring_at) WHERE bell > 0;

CREATE TABLE durable.inputs (
    n           bigint PRIMARY KEY,
    create_op   text NOT NULL,
    input       bytea NOT NULL,
    options     bytea NOT NULL,
    tags        text NOT NULL,      -- a JSON object
    cause       bytea NOT NULL,
    items       bigint NOT NULL,    -- while it is pending for a batch
    first_input bytea               -- of one that continued as new
);

CREATE TABLE durable.tags (
    ns         integer NOT NULL,
    tag        text COLLATE "C" NOT NULL,   -- its name and its value, as a JSON array
    created_at bigint NOT NULL,
    n          bigint NOT NULL,
    PRIMARY KEY (ns, tag, created_at, n)
);
CREATE INDEX tags_execution ON durable.tags (n);

CREATE TABLE durable.checkpoints (
    n           bigint NOT NULL,
    step_id     text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    kind        text NOT NULL,
    name        text NOT NULL,
    status      text NOT NULL,
    data        bytea NOT NULL,
    attempts    bigint NOT NULL,
    started_at  bigint NOT NULL,
    finished_at bigint,
    wake_at     bigint,
    PRIMARY KEY (n, step_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE durable.timers (
    n       bigint NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    ns      integer NOT NULL,
    at      bigint NOT NULL,
    seq     bigint NOT NULL,   -- the checkpoint's, 0 for the run's timeout
    PRIMARY KEY (n, step_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX timers_due ON durable.timers (ns, at, n, seq);

CREATE TABLE durable.inbox (
    n           bigint NOT NULL,
    seq         bigint NOT NULL,
    id          text NOT NULL,
    kind        text NOT NULL,
    name        text NOT NULL,
    data        bytea NOT NULL,
    at          bigint NOT NULL,
    urgent      boolean NOT NULL,   -- it reaches further than a parked execution
    consumed_by text,
    PRIMARY KEY (n, seq)
);
CREATE INDEX inbox_unread ON durable.inbox (n, seq) WHERE consumed_by IS NULL;

CREATE TABLE durable.message_ids (
    n  bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (n, id)
);

CREATE TABLE durable.watchers (
    target  bigint NOT NULL,
    watcher bigint NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    turn    bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (target, watcher, step_id)
);

CREATE TABLE durable.named_values (
    n    bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (n, name)
);

CREATE TABLE durable.workers (
    ns    integer NOT NULL,
    id    text COLLATE "C" NOT NULL,
    until bigint NOT NULL,
    info  bytea NOT NULL,
    PRIMARY KEY (ns, id)
) WITH (fillfactor = 50);

CREATE TABLE durable.seekers (
    n          bigint NOT NULL,
    step_id    text COLLATE "C" NOT NULL,   -- empty: the execution itself
    ns         integer NOT NULL,
    gates      jsonb NOT NULL,              -- an array
    at         integer NOT NULL,            -- number of gates that it has passed
    counted    text[] NOT NULL,             -- the rates and windows that have counted it
    message_id text NOT NULL,
    PRIMARY KEY (n, step_id)
);
CREATE INDEX seekers_namespace ON durable.seekers (ns);

CREATE TABLE durable.gates (
    ns         integer NOT NULL,
    name       text COLLATE "C" NOT NULL,
    rule       text COLLATE "C" NOT NULL,
    kind       text NOT NULL,
    declared   bigint NOT NULL,              -- the limit, as it was declared last
    per_ms     bigint NOT NULL,
    burst      bigint NOT NULL,
    arrival_at double precision NOT NULL DEFAULT 0,   -- of a rate: the theoretical arrival time of the next
    opens_at   bigint,                       -- with a line: when time lets the first pass
    idle_at    bigint NOT NULL DEFAULT -1,   -- from when on it is as if nobody had sought it, unless somebody is there
    PRIMARY KEY (ns, name)
) WITH (fillfactor = 50);
CREATE INDEX gates_opening ON durable.gates (ns, opens_at) WHERE opens_at IS NOT NULL;
CREATE INDEX gates_rule ON durable.gates (ns, rule) WHERE per_ms >= 0;
CREATE INDEX gates_idle ON durable.gates (ns, idle_at) WHERE idle_at >= -1;

CREATE TABLE durable.slots (
    ns       integer NOT NULL,
    gate     text COLLATE "C" NOT NULL,
    n        bigint NOT NULL,
    step_id  text COLLATE "C" NOT NULL,
    since    bigint NOT NULL,
    replaced boolean NOT NULL DEFAULT false,   -- it was told to make room
    turn     bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (ns, gate, n, step_id)
);
CREATE INDEX slots_execution ON durable.slots (n);

CREATE TABLE durable.line (
    n        bigint NOT NULL,
    step_id  text COLLATE "C" NOT NULL,
    ns       integer NOT NULL,
    gate     text COLLATE "C" NOT NULL,
    priority integer NOT NULL,
    since    bigint NOT NULL,
    replaced boolean NOT NULL DEFAULT false,
    turn     bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (n, step_id)
);
CREATE INDEX line_order ON durable.line (ns, gate, priority DESC, since, turn);

CREATE TABLE durable.passes (ns integer NOT NULL, gate text COLLATE "C" NOT NULL, at bigint NOT NULL);
CREATE INDEX passes_at ON durable.passes (ns, gate, at);

CREATE TABLE durable.limits (
    ns     integer NOT NULL,
    rule   text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (ns, rule)
);
-- The rules whose limit was changed since the last tick.
CREATE TABLE durable.changed_rules (ns integer NOT NULL, rule text COLLATE "C" NOT NULL, PRIMARY KEY (ns, rule));
CREATE TABLE durable.paused_queues (ns integer NOT NULL, queue text COLLATE "C" NOT NULL, PRIMARY KEY (ns, queue));

-- By group: the execution that the next one may join, unless it is due or claimed by now.
CREATE TABLE durable.pending (
    ns      integer NOT NULL,
    "group" text COLLATE "C" NOT NULL,
    n       bigint,
    PRIMARY KEY (ns, "group")
);
CREATE INDEX pending_execution ON durable.pending (n);

-- By operation: the execution that it joined.
CREATE TABLE durable.joined (
    ns           integer NOT NULL,
    op_id        text COLLATE "C" NOT NULL,
    n            bigint NOT NULL,
    available_at bigint NOT NULL,
    PRIMARY KEY (ns, op_id)
);
CREATE INDEX joined_execution ON durable.joined (n);

CREATE TABLE durable.event_names (
    ns   integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    seq  bigint NOT NULL,   -- the last event's
    PRIMARY KEY (ns, name)
) WITH (fillfactor = 50);

CREATE TABLE durable.events (
    ns      integer NOT NULL,
    name    text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL,
    id      text COLLATE "C" NOT NULL,
    data    bytea NOT NULL,
    at      bigint NOT NULL,
    op_id   text NOT NULL,
    shapes  text[] NOT NULL,   -- that its sender knew
    topics  text[] NOT NULL,
    receipt text[] NOT NULL DEFAULT '{}',   -- ids of executions
    PRIMARY KEY (ns, name, seq)
);
CREATE UNIQUE INDEX events_id ON durable.events (ns, name, id);
CREATE INDEX events_at ON durable.events (ns, at) WHERE at > 0;

CREATE TABLE durable.event_shapes (
    ns    integer NOT NULL,
    name  text COLLATE "C" NOT NULL,
    shape text COLLATE "C" NOT NULL,
    turn  bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (ns, name, shape)
);

CREATE TABLE durable.listeners (
    n       bigint NOT NULL,
    event   text COLLATE "C" NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    ns      integer NOT NULL,
    shape   text COLLATE "C" NOT NULL,
    topic   text COLLATE "C" NOT NULL,
    cancel  bytea,
    turn    bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (n, event, step_id)
);
CREATE INDEX listeners_topic ON durable.listeners (ns, event, topic);
CREATE INDEX listeners_shape ON durable.listeners (ns, event, shape) WHERE turn > 0;

CREATE TABLE durable.subscribers (
    ns       integer NOT NULL,
    event    text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    data     bytea NOT NULL,
    shapes   text[] NOT NULL,
    PRIMARY KEY (ns, event, workflow)
);

CREATE TABLE durable.schedules (
    ns            integer NOT NULL,
    id            text COLLATE "C" NOT NULL,
    data          bytea NOT NULL,
    next_at       bigint,
    ver           bigint NOT NULL,
    op_id         text NOT NULL,     -- of the last save
    execution_ids text[] NOT NULL,   -- that it started
    PRIMARY KEY (ns, id)
);
CREATE INDEX schedules_due ON durable.schedules (ns, next_at) WHERE next_at IS NOT NULL;

-- An execution as readers see it.
CREATE VIEW durable.shown AS
    SELECT e.ns, e.n, e.id, e.workflow, e.version, e.queue, e.priority, e.key, i.tags, i.options, i.input, e.parent_id,
           e.state, e.status, e.attempt, e.generation, e.ver, e.op_id, e.nonce, e.worker, e.crashes, e.inbox_seq,
           e.created_at, e.available_at, e.started_at, e.finished_at, e.wake_at, e.deadline_at, e.result, e.error,
           e.code, (SELECT l.gate FROM durable.line AS l WHERE l.n = e.n AND l.step_id = '') AS held_by, i.cause
    FROM durable.executions AS e JOIN durable.inputs AS i USING (n);
