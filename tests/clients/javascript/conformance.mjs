// `node conformance.mjs CONFIG`: what an engine does, by docs/protocol.md. Prints a line of JSON: each check, and why
// it failed or null. CONFIG is JSON: `address`, where the engine is encrypted the line of `taskengine keys pair` and the keys of a `stranger`,
// the file of `vectors`, how long the servo's `lease` runs in s, and the `patience` that a slow machine needs, in ms.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, SeedClient } from "./client.mjs";
import { checks as vectorChecks, meant } from "./vectors.mjs";
import { readFileSync } from "node:fs";
import { EngineError, join, KIND, NumpyArray, pack, packCalls, PRIORITY, REPLY, unpackHead } from "./wire.mjs";

const config = JSON.parse(process.argv[2]);
const { address, vectors, lease, patience } = config;
const keys = config.pair && readPair(config.pair);
const found = {};
const open = (options = {}) => Client.open(address, { keys, timeout: patience, ...options });

function readPair(line) {
  const prefix = "taskengine-pair:";
  assert.ok(line.startsWith(prefix));
  const { address: where, engine, name, own } = JSON.parse(Buffer.from(line.slice(prefix.length), "base64url"));
  assert.deepEqual([where, name], [config.address, "node"]);
  return { engine, ...own };
}

async function check(name, run) {
  try {
    await run();
    found[name] = null;
  } catch (error) {
    found[name] = `${error.stack ?? error}`;
  }
}

/** A check with a client of its own. */
const checkWith = (name, run, options) =>
  check(name, async () => {
    const client = await open(options);
    try {
      await run(client);
    } finally {
      client.close();
    }
  });

const fails = (promise, name) =>
  promise.then(
    (value) => assert.fail(`${name} was expected, not ${JSON.stringify(value, (_, each) => (typeof each === "bigint" ? `${each}` : each))}`),
    (error) => {
      assert.equal(error.name, name, error.message);
      return error;
    },
  );

async function eventually(look, what) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await look();
    if (value) return value;
    if (Date.now() > end) assert.fail(what);
    await sleep(10);
  }
}

async function calls() {
  await checkWith("info", async (client) => {
    assert.equal(client.version, 2);
    assert.ok(client.capabilities.includes("clock") && client.capabilities.includes("stop"));
    assert.ok(client.stopTasks.includes("system.stop"));
    assert.equal((await client.info()).length >= 9, true);
  });
  await checkWith("tasks", async (client) => {
    const task = (await client.tasks()).find(([name]) => name === "task_count");
    const [, lane, signature, , timeout, idempotent, module, urgent] = task;
    assert.deepEqual([lane, timeout, idempotent, module, urgent], ["", null, false, "taskengine.tasks", false]);
    assert.match(signature, /^\(a/);
  });
  await checkWith("call", async (client) => {
    assert.equal(await client.call("task_count", [2, 3]), 2.5);
    assert.equal(await client.call("task_count", [], { a: 2, b: 3 }), 2.5);
  });
  await checkWith("a thousand calls in order", async (client) => {
    const many = Array.from({ length: 1000 }, (_, number) => ["task_echo", [number]]);
    assert.deepEqual(await client.run(many), many.map(([, [number]]) => number));
  });
  await checkWith("an empty package", async (client) => assert.deepEqual(await client.run([]), []));
  await checkWith("errors by task", async (client) => {
    const [first, failed, unknown, bad, last] = await client.run([
      ["task_count", [1, 1]], ["task_fail", ["boom"]], ["task_cuont", []], ["task_count", []], ["task_count", [3, 3]],
    ]);
    assert.deepEqual([first, last], [1, 3]);
    assert.deepEqual([failed.name, failed.fields.type], ["TaskFailed", "RuntimeError"]);
    assert.match(failed.fields.traceback, keys ? /^$/ : /boom/); // not told to other machines (TRACEBACKS)
    assert.equal(unknown.name, "UnknownTask");
    assert.equal(unknown.fields.name, "task_cuont");
    assert.ok(unknown.fields.nearest.includes("task_count"));
    assert.deepEqual([bad.name, bad.fields.name], ["BadArguments", "task_count"]);
  });
  await checkWith("reply modes", async (client) => {
    const mixed = [["task_count", [2, 3]], ["task_fail", ["x"]]];
    const [nothing, failed] = await client.run(mixed, { reply: REPLY.ERRORS });
    assert.deepEqual([nothing, failed.name], [undefined, "TaskFailed"]);
    const { names, index, body } = packCalls(mixed);
    const { head, frames } = await client.ask(KIND.PACKAGE, { names, reply: REPLY.NONE }, [index, body]);
    assert.deepEqual([frames.length, head.count, head.failed], [1, 2, 1]);
  });
  await checkWith("columns", async (client) => {
    const halves = await client.columns("task_count", [BigInt64Array.of(1n, 2n), Float64Array.of(0.5, 1.5)]);
    assert.deepEqual(halves, [0.75, 1.75]);
    assert.deepEqual((await client.columns("task_echo", [BigInt64Array.of(5n)])).map(String), ["5"]);
  });
  await checkWith("values come back", async (client) => {
    for (const { name, value } of JSON.parse(readFileSync(vectors)).values) {
      if ("$map" in Object(value)) continue;
      const given = meant(value);
      const back = await client.call("task_echo", [given]);
      if (back instanceof NumpyArray) assert.deepEqual({ ...back, data: [...back.data] }, { ...given, data: [...given.data] });
      else if (back instanceof Uint8Array) assert.deepEqual([...back], [...given]);
      else assert.deepEqual(typeof given === "bigint" ? BigInt(back) : back, given, name);
    }
  });
  await checkWith("urgent and idempotent", async (client) => {
    const options = { priority: PRIORITY.URGENT, idempotent: true, deadline: 10 };
    assert.equal(await client.call("task_count", [2, 3], {}, options), 2.5);
  });
  await checkWith("a deadline", async (client) => {
    const busy = client.run(Array.from({ length: 40 }, () => ["task_sleep", [0.02]]));
    const late = await client.run([["task_count", [2, 3]]], { deadline: 0.001, priority: PRIORITY.LOW });
    assert.equal(late[0].name, "TaskTimeout");
    await busy;
  });
  await checkWith("replies come as they are ready, by their serials", async (client) => {
    const order = [];
    const slow = client.call("task_sleep", [patience / 40_000]).then(() => order.push("slow"));
    const quick = client.call("task_count", [2, 3]).then(() => order.push("quick"));
    await Promise.all([slow, quick]);
    assert.deepEqual(order, ["quick", "slow"]);
  });
  await checkWith("each result as it comes, and none twice", async (client) => {
    assert.ok(client.capabilities.includes("each"));
    const calls = [["task_count", [2, 3]], ["task_nothing"], ["task_sleep", [patience / 40_000]]];
    const told = [];
    await client.each(calls, (position, result) => told.push([position, result]));
    assert.deepEqual(told.map(([position]) => position).sort(), [0, 1, 2]);
    assert.equal(told.find(([position]) => position === 0)[1], 2.5);
    assert.equal(told.find(([position]) => position === 1)[1].name, "UnknownTask");
    assert.equal(told.at(-1)[0], 2);
    told.length = 0;
    await client.each([], (position) => told.push(position));
    assert.deepEqual(told, []);
  });
  await checkWith("progress and cancel", async (client) => {
    const tasks = Array.from({ length: 60 }, () => ["task_sleep", [0.05]]);
    const running = client.run(tasks);
    const serial = client.serial;
    const [mine] = await eventually(client.progress, "no progress");
    assert.equal(mine[0], String(serial));
    assert.equal(mine[2], 60);
    await client.cancel(serial, [59]);
    await client.cancel(serial);
    const ended = await running;
    assert.equal(ended[59].name, "Cancelled");
    assert.deepEqual(await client.progress(), []);
    await client.cancel();
  });
  await checkWith("stats", async (client) => {
    const [accepted, answered, inFlight, errors, , , , restarts, packages, bytesHeld, lanes, waiting] = await client.stats();
    assert.equal(accepted, answered + inFlight);
    assert.equal(typeof errors, "object");
    assert.equal(typeof restarts, "object");
    assert.ok(packages >= 0 && bytesHeld >= 0);
    assert.ok(lanes.some(([name]) => name === "") && lanes.some(([name]) => name === "data:0"));
    assert.equal(waiting.length, 2);
  });
  await checkWith("reload", async (client) => assert.equal(await client.reload(), null));
}

async function refusals() {
  await checkWith("a refusal names its request", async (client) => {
    const error = await fails(client.one(99), "ProtocolError");
    assert.match(error.message, /kind|enum/);
    const { head } = await client.ask(99, {}, []);
    assert.equal(head.count, 0);
  });
  await checkWith("what cannot be read is refused with serial 0", async (client) => {
    await client.connection.send([join([Uint8Array.of(0x54, 0x45, 0x02), pack("no head")])]);
    await eventually(() => client.refusals.length, "no refusal");
    assert.equal(client.refusals[0][0], 9);
    assert.equal(await client.call("task_count", [2, 3]), 2.5);
  });
  await checkWith("a package without its frames", (client) => fails(client.request(KIND.PACKAGE), "ProtocolError"));
  await checkWith("an extension that is no value", async (client) => {
    const [error] = await client.run([["task_echo", [new EngineError(1, "mine")]]]);
    assert.equal(error.name, "ProtocolError");
  });
}

async function topics() {
  await checkWith("publish and latest", async (client) => {
    assert.equal(await client.publish("js.state", { angle: 30, seen: [1.5, null] }), null);
    assert.deepEqual(await client.latest("js.state"), { angle: 30, seen: [1.5, null] });
    for (const reply of [REPLY.ERRORS, REPLY.NONE]) {
      assert.deepEqual(await client.latest("js.state", { reply }), { angle: 30, seen: [1.5, null] });
    }
  });
  await checkWith("errors of data requests stand in the head", async (client) => {
    const { head, frames } = await client.ask(KIND.LATEST, {}, [pack(["js.never"])]);
    assert.deepEqual([frames.length, head.count, head.error[0], head.error[2].type], [1, 0, 1, "LookupError"]);
    await fails(client.publish("hardware.mine", 1), "NotAllowed");
    const malformed = await client.ask(KIND.LATEST, {}, [pack([7])]);
    assert.equal(malformed.head.error[0], 9);
  });
  await checkWith("a subscription", async (client) => {
    await client.publish("js.feed.a", "first");
    const feed = client.subscribe("js.feed.");
    try {
      const last = await feed.next(patience);
      assert.deepEqual([last.topic, last.value, last.meta.part], ["js.feed.a", "first", 1]);
      assert.equal(last.meta.publisher, keys ? "client:node" : "client");
      await client.publish("js.feed.b", [1, { a: null }]);
      const next = await feed.next(patience);
      assert.deepEqual([next.topic, next.value, next.meta.part], ["js.feed.b", [1, { a: null }], 1]);
    } finally {
      feed.close();
    }
  });
}

async function hardware() {
  await checkWith("devices", async (client) => {
    const feed = client.subscribe("hardware.lamp");
    try {
      await client.call("gpio.write", ["lamp", true]);
      await eventually(async () => (await feed.next(patience)).value.value === true, "no publication of the lamp");
      assert.equal((await client.call("devices.state", ["lamp"])).lamp.value, true);
      await fails(client.call("gpio.write", ["lamp", 7]), "BadArguments");
      assert.equal(await client.call("legs.devices.state", ["hip"]).then((state) => state.hip.value), null);
    } finally {
      feed.close();
    }
  });
  await checkWith("an exclusive lease is the token's", async (holder) => {
    const [other, again] = [await open(), await open({ token: holder.token })];
    try {
      assert.equal(await holder.call("lease.acquire", [["pan"], true]), lease);
      await holder.call("servo.set", ["pan"], { angle: 20 });
      await fails(other.call("servo.set", ["pan"], { angle: 0 }), "NotAllowed");
      await fails(other.call("lease.renew", [["pan"]]), "NotAllowed");
      await again.call("servo.set", ["pan"], { angle: 10 });
      assert.equal(await again.call("lease.renew", [["pan"]]), lease);
      assert.equal(await other.call("device.rest", ["pan"]), null);
      await holder.call("lease.release", [["pan"]]);
      await other.call("servo.set", ["pan"], { angle: 0 });
    } finally {
      other.close();
      again.close();
    }
  });
  await checkWith("a lease lapses", async (client) => {
    await client.call("servo.set", ["pan"], { angle: 20 });
    const value = async () => (await client.call("devices.state", ["pan"])).pan.value;
    assert.equal(await value(), 20);
    await eventually(async () => (await value()) === null, "the servo still gets pulses");
    await fails(client.call("lease.renew", [["pan"]]), "NotAllowed");
  });
  await checkWith("a command that is too old moves nothing", async (client) => {
    const sent = client.clockAt(process.hrtime.bigint()).clock - BigInt(Math.round(lease * 4e9));
    await fails(client.call("servo.set", ["pan"], { angle: 20 }, { sent }), "TaskTimeout");
  });
  await checkWith("stop and arm", async (client) => {
    const id = Uint8Array.from({ length: 16 }, (_, byte) => byte);
    assert.equal(await client.stop("a test", id), null);
    assert.ok(client.stopped > 0);
    const state = await client.call("system.state");
    assert.equal(state.armed, false);
    assert.equal(state.why, "a test");
    await fails(client.call("servo.set", ["pan"], { angle: 20 }), "NotAllowed");
    await fails(client.call("system.arm", [client.stopped + 1]), "NotAllowed");
    await client.arm();
    assert.equal(await client.stop("a test", id), null); // the same stop
    assert.equal(client.stopped, 0);
    await client.call("servo.set", ["pan"], { angle: 20 });
  });
  await checkWith("the stop port", async (client) => {
    const port = new Client(client.stopAddress, { keys, timeout: patience });
    try {
      await fails(port.tasks(), "ProtocolError");
      assert.equal(await port.stop("past the router"), null);
      assert.equal((await client.call("system.state")).armed, false);
      await client.arm();
    } finally {
      port.close();
    }
  });
}

async function seed(delimiter) {
  const name = (text) => `wire 0.1${delimiter ? ", as REQ" : ""}: ${text}`;
  const checkSeed = (text, run) =>
    check(name(text), async () => {
      const client = new SeedClient(address, { keys, delimiter, timeout: patience });
      try {
        await run(client);
      } finally {
        client.close();
      }
    });
  const meta = (more) => ({ id: "JS", role: "requestor", version: 0.1, type: "REQ", pack: 1483507553.307392, ...more });
  const task = (name, ...args) => ({ task: name, args, kwargs: {}, pack: `p${args.length}` });
  await checkSeed("a package", async (client) => {
    const tasks = Array.from({ length: 63 }, () => task("task_count", 2, 3));
    const { head, data, entries } = await client.run(meta({ length: 63, serial: "s" }), ...tasks);
    assert.deepEqual(entries, tasks.map(() => ({ entry: "job-p2: 2.5", isError: false })));
    assert.deepEqual([head.type, head.role, head.serial, head.size, head.part], ["ACK", "assembler", "s", data.length, data.length]);
    assert.ok(data.every((frame) => frame.size === frame.data.length && frame.pack === 1483507553.307392));
  });
  await checkSeed("errors", async (client) => {
    const { entries } = await client.run(meta(), task("task_echo", "ERROR: not one"), task("no_such"), task("task_fail", "x"));
    assert.deepEqual(entries.map(({ isError }) => isError), [false, true, true]);
    assert.equal(entries[0].entry, "job-p1: ERROR: not one");
  });
  await checkSeed("the shortest messages", async (client) => {
    const [head] = await client.ask({});
    assert.deepEqual([head.type, head.size, head.part, head.error], ["ACK", 0, 0, undefined]);
    const { entries } = await client.run({}, { task: "task_echo" });
    assert.deepEqual(entries, [{ entry: "job-: []", isError: false }]);
  });
  await checkSeed("a refusal", async (client) => {
    const reply = await client.ask(meta({ length: 3, serial: "s" }), task("task_count", 2, 3));
    assert.deepEqual([reply.length, reply[0].serial, reply[0].id, reply[0].size], [1, "s", "ROUTER", 0]);
    assert.match(reply[0].error, /length is 3/);
  });
  await checkSeed("PUB and GET", async (client) => {
    const [ack, ...none] = await client.ask(meta({ type: "PUB" }), { data: { topic: "js.seed", value: { a: [1, null] } } });
    assert.deepEqual([ack.error, none], [undefined, []]);
    const [, data] = await client.ask(meta({ type: "GET" }), { data: { topic: "js.seed" } });
    assert.deepEqual(data.data, { a: [1, null] });
    const [head, ...rest] = await client.ask(meta({ type: "GET" }), { data: { topic: "js.never" } });
    assert.match(head.error, /nothing was published/);
    assert.deepEqual(rest, []);
  });
  await checkSeed("devices, on this machine", async (client) => {
    const { entries: early } = await client.run(meta(), task("task_servo_set", "grip", 0.5));
    assert.match(early[0].entry, /ERROR: .*lease.acquire/); // it was there before the machine was armed, or may have been
    const moves = [task("lease.acquire", ["grip"]), task("task_servo_set", "grip", 0.5), task("system.state")];
    const { entries } = await client.run(meta(), ...moves);
    assert.deepEqual(entries.slice(0, 2).map(({ entry }) => entry), ["job-p1: 0.5", "job-p2: None"]);
    assert.match(entries[2].entry, /"armed":true/);
  });
}

async function strangers() {
  await check("CURVE: a stranger gets no reply", async () => {
    for (const wrong of [undefined, { engine: keys.engine, ...config.stranger }]) {
      const client = new Client(address, { keys: wrong, timeout: 500 });
      await fails(client.info(), "EngineUnreachable");
      client.close();
    }
  });
  await check("CURVE: a routing id of one's own is refused", async () => {
    const client = new Client(address, { keys, timeout: patience, routingId: "mine" });
    await fails(client.info(), "NotAllowed");
    client.close();
  });
}

for (const [name, run] of vectorChecks(vectors)) await check(name, run);
await check("the devices are there", () =>
  eventually(async () => {
    const client = await open();
    try {
      return (await client.run([["devices.state"], ["legs.devices.state"]])).every((one) => !(one instanceof EngineError));
    } finally {
      client.close();
    }
  }, "no devices"));
await calls();
await refusals();
await topics();
await hardware();
await seed(true);
await seed(false);
if (keys) await strangers();
console.log(JSON.stringify(found));
process.exit(0);
