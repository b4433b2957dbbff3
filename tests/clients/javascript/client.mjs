// A client of both wires over ZeroMQ.

import { randomBytes } from "node:crypto";
import { Dealer, Subscriber } from "zeromq";
import { EngineError, KIND, pack, packCalls, packColumns, packHead, REPLY, results, unpackHead } from "./wire.mjs";

const SAMPLE_NS = 30n * 10n ** 9n;
const DRIFT = 1000n; // two clocks run apart by 1/1000 at most

function present(socket, keys) {
  if (!keys) return;
  socket.curveServerKey = keys.engine;
  socket.curvePublicKey = keys.public;
  socket.curveSecretKey = keys.secret;
}

/** Gives each promise a timeout of its own: a router that has died answers nothing. */
async function within(promise, milliseconds, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new EngineError(10, `no reply to ${what} in ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Frames out and in, one after the other, of a DEALER. */
class Connection {
  constructor(address, { keys, routingId } = {}) {
    this.socket = new Dealer({ linger: 0 });
    if (routingId) this.socket.routingId = routingId;
    present(this.socket, keys);
    this.socket.connect(address);
    this.sending = Promise.resolve();
  }

  send(frames) {
    return (this.sending = this.sending.then(() => this.socket.send(frames)));
  }

  async listen(take) {
    try {
      for await (const frames of this.socket) take(frames);
    } catch (error) {
      if (!this.socket.closed) throw error;
    }
  }
}

/** Wire 0.2. */
export class Client {
  constructor(address, { name = "JS", keys, timeout = 20_000, token = randomBytes(16), routingId } = {}) {
    Object.assign(this, { name, keys, timeout, token });
    this.serial = 0;
    this.pending = new Map();
    this.refusals = []; // of requests whose serial the engine could not read
    this.samples = [];
    this.since = process.hrtime.bigint();
    this.connection = new Connection(address, { keys, routingId });
    this.connection.listen((frames) => this.take(frames));
  }

  static async open(address, options) {
    const client = new Client(address, options);
    [client.about] = await client.request(KIND.INFO, {}, [pack([["clock", "stop"]])]);
    const [version, responseTime, chunkingSize, taskWorkers, dataAddresses, pid, capabilities, stopTasks, stopAddress] =
      client.about;
    Object.assign(client, { version, responseTime, chunkingSize, taskWorkers, dataAddresses, pid });
    Object.assign(client, { capabilities, stopTasks, stopAddress });
    return client;
  }

  close() {
    this.connection.socket.close();
  }

  take(frames) {
    const now = process.hrtime.bigint();
    const head = unpackHead(frames[0]);
    this.stopped = Number(head.stop);
    if (Number(head.serial) === 0) {
      this.refusals.push(head.error);
      return;
    }
    const pending = this.pending.get(Number(head.serial));
    if (!pending) return;
    if (head.reply === REPLY.EACH) pending.take(head, frames);
    if (!head.last) return;
    this.pending.delete(Number(head.serial));
    if (head.clock) this.sample(BigInt(head.clock), BigInt(head.boot), pending.left, now);
    pending.resolve({ head, frames });
  }

  /** Keep what a reply tells of the engine's clock. */
  sample(clock, boot, left, now) {
    if (this.boot !== boot) this.samples = [];
    this.boot = boot;
    const half = (now - left) / 2n;
    this.samples = this.samples.filter((sample) => now - sample.at < SAMPLE_NS);
    this.samples.push({ at: now, ahead: clock + half - now, half });
  }

  /** The engine's clock at a moment of ours, and how far that may be off. */
  clockAt(moment) {
    const [best] = [...this.samples].sort((one, other) => Number(one.half - other.half));
    if (!best) return { clock: 0n, bound: 0n };
    const age = moment > best.at ? moment - best.at : best.at - moment;
    return { clock: moment + best.ahead, bound: best.half + age / DRIFT };
  }

  times() {
    if (!this.capabilities?.includes("clock")) return {};
    const { clock, bound } = this.clockAt(process.hrtime.bigint());
    const since = this.clockAt(this.since).clock;
    return { sent: clock, bound, token: this.token, since };
  }

  /** The reply, head and frames. */
  async ask(kind, head, frames, take) {
    const serial = ++this.serial;
    const whole = packHead({ kind, serial, client: this.name, ...this.times(), ...head });
    const reply = new Promise((resolve) => this.pending.set(serial, { resolve, take, left: process.hrtime.bigint() }));
    this.connection.send([whole, ...frames]);
    return within(reply, this.timeout, `request ${serial}`);
  }

  async request(kind, head = {}, frames = []) {
    const reply = await this.ask(kind, head, frames);
    return results(reply.frames);
  }

  /** A result or an EngineError for each of the calls, [name, args, kwargs]. */
  run(calls, options = {}) {
    const { names, index, body } = packCalls(calls);
    return this.request(KIND.PACKAGE, { names, ...options }, [index, body]);
  }

  /** Calls of which `tell(position, result)` is told as each ends. */
  async each(calls, tell, options = {}) {
    const { names, index, body } = packCalls(calls);
    const take = (head, frames) => {
      const told = head.error ? new Array(head.count).fill(new EngineError(...head.error)) : results(frames);
      told.forEach((result, place) => tell(head.first + place, result));
    };
    const reply = await this.ask(KIND.PACKAGE, { names, reply: REPLY.EACH, ...options }, [index, body], take);
    if (reply.head.reply !== REPLY.EACH) results(reply.frames); // throws: it was refused
  }

  async call(name, args = [], kwargs = {}, options = {}) {
    const [result] = await this.run([[name, args, kwargs]], options);
    if (result instanceof EngineError) throw result;
    return result;
  }

  columns(name, columns) {
    const { index, body } = packColumns(columns);
    return this.request(KIND.PACKAGE, { names: [name], columns: true }, [index, body]);
  }

  async one(kind, body, head = {}) {
    return (await this.request(kind, head, body === undefined ? [] : [pack(body)]))[0];
  }

  info = () => this.one(KIND.INFO);
  tasks = () => this.one(KIND.TASKS);
  stats = () => this.one(KIND.STATS);
  progress = () => this.one(KIND.PROGRESS);
  reload = () => this.one(KIND.RELOAD);
  publish = (topic, value) => this.one(KIND.PUBLISH, [topic, value]);
  latest = (topic, head) => this.one(KIND.LATEST, [topic], head);
  cancel = (serial = 0, positions = null) => this.one(KIND.CANCEL, [serial, positions]);
  stop = (why = "", id = randomBytes(16)) => this.one(KIND.STOP, [id, why]);
  arm = () => this.call("system.arm", [this.stopped]);

  /** The publications on topics that begin so; each data worker has a port of its own. */
  subscribe(prefix) {
    return new Subscription(this.dataAddresses, prefix, this.keys);
  }
}

export class Subscription {
  constructor(addresses, prefix, keys) {
    this.socket = new Subscriber({ linger: 0 });
    present(this.socket, keys);
    this.socket.subscribe(prefix);
    this.parts = new Map();
    for (const address of addresses) this.socket.connect(address);
  }

  /** The next publication that was not seen: last values may come again. */
  async next(timeout = 20_000) {
    for (;;) {
      const frames = await within(this.socket.receive(), timeout, "a subscription");
      const topic = frames[0].toString();
      const meta = JSON.parse(frames[1]);
      if (this.parts.get(topic) === meta.part) continue;
      this.parts.set(topic, meta.part);
      return { topic, meta, value: JSON.parse(frames[2]).data };
    }
  }

  close() {
    this.socket.close();
  }
}

/** Wire 0.1, with the empty delimiter of a REQ or without. */
export class SeedClient {
  constructor(address, { keys, timeout = 20_000, delimiter = true } = {}) {
    this.connection = new Connection(address, { keys });
    this.delimiter = delimiter ? [""] : [];
    this.timeout = timeout;
  }

  close() {
    this.connection.socket.close();
  }

  /** The frames of the reply to a message of objects, read. */
  async ask(...frames) {
    await this.connection.send([...this.delimiter, ...frames.map((frame) => JSON.stringify(frame))]);
    const reply = await within(this.connection.socket.receive(), this.timeout, "a message");
    return reply.slice(this.delimiter.length).map((frame) => JSON.parse(frame));
  }

  /** The texts of a package's results, and which of them are errors. */
  async run(meta, ...tasks) {
    const [head, ...data] = await this.ask(meta, ...tasks);
    if (head.error) throw new Error(head.error);
    const entries = data.flatMap((frame) =>
      frame.data.map((entry, place) => ({ entry, isError: frame.errors.includes(place) })));
    return { head, data, entries };
  }
}
