// The workloads on BlueLibs Runner, on memory or on Redis and RabbitMQ. It runs in the folder of its packages.

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(join(process.cwd(), "driver.js"));
const { r, run } = require("@bluelibs/runner");
const { durableWorkflowTag, memoryDurableResource, redisDurableResource } = require("@bluelibs/runner/node");

const settings = JSON.parse(process.argv[2]);
const CONCURRENCY = 100;
const LATENCY_BUDGET_MS = 6000;
const ENOUGH = 20;
const LEASE_MS = 1000;
const PATIENCE_MS = 60_000;

const now = () => performance.now();
const count = (full, least = 1) => Math.max(least, Math.round(full * settings.scale));
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const range = (n) => Array.from({ length: n }, (_, i) => i);
const median = (values) => percentile(values, 0.5);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = async () => (await lines.next()).value ?? "";

function percentile(values, share) {
  const ordered = [...values].sort((a, b) => a - b);
  return ordered[Math.min(ordered.length - 1, Math.floor(ordered.length * share))];
}

function equal(actual, expected) {
  if (JSON.stringify(actual) !== JSON.stringify(expected)) {
    throw new Error(`${JSON.stringify(actual)} is not ${JSON.stringify(expected)}`);
  }
}

async function series(most, once) {
  const times = [];
  const ends = now() + LATENCY_BUDGET_MS;
  while (times.length < most && (times.length < Math.min(ENOUGH, most) || now() < ends)) {
    times.push(await once(times.length));
  }
  return { "p50 ms": median(times), "p99 ms": percentile(times, 0.99) };
}

const isShared = Boolean(settings.urls.redis);
const durable = (isShared ? redisDurableResource : memoryDurableResource).fork("bench");

function registration() {
  const works = settings.role !== "w7-accept";
  const inHaste = settings.role.startsWith("w7");
  const polling = inHaste ? { enabled: works, interval: 250, claimTtlMs: LEASE_MS } : { enabled: works };
  if (!isShared) return durable.with({ worker: true, polling });
  return durable.with({
    redis: { url: settings.urls.redis },
    queue: { url: settings.urls.amqp, prefetch: CONCURRENCY },
    worker: works,
    polling,
  });
}

const answer = r.event("answer").build();
const finish = r.event("finish").build();
const asked = new Map();
const woke = new Map();
let marks = [];
let calls = [];
let lastStepDone = () => {};
let diesAfter = 0;
let ended = 0;

const increased = async (n) => ({ n: n + 1 });

const workflow = (id, body) =>
  r
    .task(id)
    .dependencies({ durable })
    .tags([durableWorkflowTag.with({ category: "bench" })])
    .run((input, deps) => body(deps.durable.use(), input.n))
    .build();

const fiveSteps = workflow("five-steps", async (ctx, n) => {
  for (const step of range(5)) n = (await ctx.step(`increase-${step}`, () => increased(n))).n;
  return n;
});

const oneStep = workflow("one-step", async (ctx, n) => (await ctx.step("increase", () => increased(n))).n);

const answered = workflow("answered", async (ctx, n) => n + (await ctx.waitForSignal(answer)).value);

const sleeper = workflow("sleeper", async (ctx, ms) => {
  if (!asked.has(ctx.executionId)) asked.set(ctx.executionId, now());
  await ctx.sleep(ms, { stepId: "sleep" });
  if (!woke.has(ctx.executionId)) woke.set(ctx.executionId, now());
  return ms;
});

const long = workflow("long", async (ctx, steps) => {
  let n = 0;
  marks = [now()];
  for (const step of range(steps)) {
    n = (
      await ctx.step(`increase-${step}`, async () => {
        calls.push(n);
        return increased(n);
      })
    ).n;
    marks.push(now());
  }
  lastStepDone();
  await ctx.waitForSignal(finish);
  return n;
});

const manySteps = workflow("many-steps", async (ctx, width) => {
  const results = await Promise.all(range(width).map((n) => ctx.step(`increase-${n}`, () => increased(n))));
  equal(results, range(width).map((n) => ({ n: n + 1 })));
  return results.reduce((total, result) => total + result.n, 0);
});

const mortalSteps = workflow("mortal-steps", async (ctx, n) => {
  for (const step of range(5)) n = (await ctx.step(`increase-${step}`, () => increased(n))).n;
  ended += 1;
  if (ended === 1 && diesAfter) say("begun");
  if (ended === diesAfter) {
    say(Date.now() / 1000);
    process.kill(process.pid, "SIGKILL");
  }
  return n;
});

async function open() {
  const workflows = [fiveSteps, oneStep, answered, sleeper, long, manySteps, mortalSteps];
  const app = r.resource("app").register([answer, finish, registration(), ...workflows]).build();
  const runtime = await run(app, { logs: { printThreshold: null } });
  return runtime.getResourceValue(durable);
}

async function untilWaiting(service, id, signal) {
  for (;;) {
    const { steps } = await service.operator.getExecutionDetail(id);
    if (steps.some((step) => step.stepId.startsWith(`__signal:${signal}`) && step.result?.state === "waiting")) return;
    await sleep(2);
  }
}

const workloads = {
  async w1(service) {
    const executions = count(2000);
    equal((await service.startAndWait(fiveSteps, { n: 0 })).data, 5);
    const results = [];
    let next = 0;
    const began = now();
    await Promise.all(
      range(CONCURRENCY).map(async () => {
        while (next < executions) {
          const n = next++;
          results[n] = (await service.startAndWait(fiveSteps, { n })).data;
        }
      }),
    );
    const seconds = (now() - began) / 1000;
    equal(results, range(executions).map((n) => n + 5));
    return { "executions/s": executions / seconds };
  },

  async w2(service) {
    for (const n of range(count(20))) equal((await service.startAndWait(oneStep, { n })).data, n + 1);
    return series(count(300), async (n) => {
      const began = now();
      const { data } = await service.startAndWait(oneStep, { n });
      const time = now() - began;
      equal(data, n + 1);
      return time;
    });
  },

  async w3(service) {
    return series(count(200), async (n) => {
      const id = await service.start(answered, { n });
      await untilWaiting(service, id, "answer");
      const began = now();
      await service.signal(id, answer, { value: 1000 });
      const result = await service.wait(id, { timeout: PATIENCE_MS });
      const time = now() - began;
      equal(result, n + 1000);
      return time;
    });
  },

  async w4(service) {
    const executions = count(5000);
    const ms = Math.max(50, Math.round(3000 * Math.min(1, 10 * settings.scale)));
    const began = now();
    const ids = await Promise.all(range(executions).map(() => service.start(sleeper, { n: ms })));
    const results = await Promise.all(ids.map((id) => service.wait(id, { timeout: PATIENCE_MS })));
    const seconds = (now() - began) / 1000;
    equal(results, range(executions).map(() => ms));
    return {
      "seconds over": seconds - ms / 1000,
      "greatest lateness ms": Math.max(...ids.map((id) => woke.get(id) - asked.get(id))) - ms,
      "peak RSS MB": process.resourceUsage().maxRSS / 1024,
    };
  },

  async "w5-run"(service) {
    const steps = count(2000, 20);
    const done = new Promise((resolve) => (lastStepDone = resolve));
    const id = await service.start(long, { n: steps });
    await done;
    await untilWaiting(service, id, "finish");
    equal(calls, range(steps));
    const spans = marks.slice(1).map((mark, i) => mark - marks[i]);
    const tenth = Math.floor(spans.length / 10);
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    return {
      id,
      figures: {
        seconds: (marks.at(-1) - marks[0]) / 1000,
        "last 10 % / first 10 %": mean(spans.slice(-tenth)) / mean(spans.slice(0, tenth)),
      },
    };
  },

  async "w5-replay"(service) {
    const steps = count(2000, 20);
    await sleep(500); // what it does of itself when it starts is not measured
    calls = [];
    const began = now();
    await service.signal(settings.argument, finish, {});
    const result = await service.wait(settings.argument, { timeout: PATIENCE_MS });
    const time = now() - began;
    equal([result, calls], [steps, []]);
    return { "replay ms": time, "replay, in the body ms": marks.at(-1) - marks[0] };
  },

  async w6(service) {
    const width = count(200, 3);
    const times = [];
    for (const _ of range(5)) {
      const began = now();
      const { data } = await service.startAndWait(manySteps, { n: width });
      times.push(now() - began);
      equal(data, (width * (width + 1)) / 2);
    }
    return { "steps ms": median(times) };
  },

  async "w7-accept"(service) {
    const executions = count(2000, 20);
    const ids = await Promise.all(range(executions).map((n) => service.start(mortalSteps, { n })));
    say("accepted");
    const killed = Number(await told());
    const deadline = Date.now() + PATIENCE_MS;
    const finished = [];
    let [stuck, lost] = [0, 0];
    let open = ids.map((id, n) => ({ id, n }));
    for (;;) {
      const left = [];
      lost = 0;
      for (const each of open) {
        const { execution } = await service.operator.getExecutionDetail(each.id);
        if (!execution) lost += 1;
        if (execution?.status === "completed") {
          equal(execution.result, each.n + 5);
          finished.push(new Date(execution.completedAt).getTime() / 1000);
        } else left.push(each);
      }
      open = left;
      stuck = open.length - lost;
      if (!open.length || Date.now() > deadline) break;
      await sleep(50);
    }
    const later = finished.filter((at) => at > killed);
    return {
      ...(open.length ? {} : { "all done s": Math.max(killed, ...later) - killed }),
      "first progress s": (later.length ? Math.min(...later) : killed) - killed,
      stuck,
      lost,
      "done when killed %": (100 * finished.filter((at) => at <= killed).length) / executions,
    };
  },

  async "w7-worker"() {
    await told();
  },
};

async function main() {
  setInterval(() => {}, 1000); // its own timers do not keep the process
  if (settings.role === "w7-worker") {
    diesAfter = Number(settings.argument.split(":")[1]);
    say("ready");
    await told();
  }
  const found = await workloads[settings.role](await open());
  if (found) say(found);
  if (settings.role === "w5-run") await told();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
