/**
 * kafkajs 2.2.4 with codecs registered and thirteen of its methods mended. The library is frozen, so the version is
 * pinned exactly; `kafkajs.test.ts` and the interoperability tests fail when a mend no longer fits.
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import kafkajs, { type ISocketFactory } from 'kafkajs';
import {
  decompressGzip,
  decompressLz4Frame,
  decompressSnappy,
  decompressZstd,
  UndecodableBatchError,
} from './codecs.ts';
import { type FetchedPartition, hideAborted } from './hide-aborted.ts';

interface RequestQueue {
  readonly pending: readonly unknown[];
  throttledUntil: number;
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  checkPendingRequests(): void;
  scheduleCheckPendingRequests(): void;
}

interface GroupMember {
  readonly groupId: string;
  lastRequest: number;
  memberId: string | null;
  joinAndSync(): Promise<void>;
  leave(): Promise<void>;
  heartbeat(options: { readonly interval: number }): Promise<void>;
  coordinator: unknown;
  readonly offsetManager: { coordinator: unknown } | null;
  readonly cluster: { findGroupCoordinator(group: { readonly groupId: string }): Promise<unknown> };
}

interface FetchedBatch {
  readonly fetchedOffset: string;
  readonly highWatermark: string;
  readonly rawMessages: readonly unknown[];
  isEmpty(): boolean;
}

interface FetchAnswer {
  readonly responses: readonly { readonly topicName: string; partitions: readonly FetchedPartition[] }[];
}

interface FetchRequest {
  readonly maxWaitTime: number;
  readonly topics: readonly {
    readonly topic: string;
    readonly partitions: readonly { readonly partition: number; readonly fetchOffset: string }[];
  }[];
}

interface Connection {
  readonly socket?: Socket;
  chunks: Buffer[];
  bytesBuffered: number;
  bytesNeeded: number;
  isConnected(): boolean;
  connect(): Promise<unknown>;
  rejectRequests(error: Error): void;
}

interface ConnectionPool {
  readonly host: string;
  readonly port: number;
  readonly pool: readonly Connection[];
  send(request: unknown): Promise<unknown>;
}

interface Broker {
  readonly nodeId: number;
  readonly brokerAddress: string;
  readonly connectionPool: ConnectionPool;
  isConnected(): boolean;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  initProducerId(request: { readonly transactionalId?: string }): Promise<unknown>;
  fetch(request: FetchRequest): Promise<FetchAnswer>;
  listOffsets(request: { readonly isolationLevel?: number; readonly topics: unknown }): Promise<unknown>;
}

type UseBroker = (chosen: { readonly nodeId: number; readonly broker: Broker }) => Promise<unknown>;

interface BrokerPool {
  readonly brokers: Readonly<Record<string, Broker>>;
  findConnectedBroker(): Promise<Broker>;
  withBroker(use: UseBroker): Promise<unknown>;
}

const require = createRequire(import.meta.url);
const RequestQueue: { prototype: RequestQueue } = require('kafkajs/src/network/requestQueue/index.js');
const ConsumerGroup: { prototype: GroupMember } = require('kafkajs/src/consumer/consumerGroup.js');
const Batch: { prototype: FetchedBatch } = require('kafkajs/src/consumer/batch.js');
const Connection: { prototype: Connection } = require('kafkajs/src/network/connection.js');
const ConnectionPool: { prototype: ConnectionPool } = require('kafkajs/src/network/connectionPool.js');
const Broker: { prototype: Broker } = require('kafkajs/src/broker/index.js');
const BrokerPool: { prototype: BrokerPool } = require('kafkajs/src/cluster/brokerPool.js');
const { KafkaJSConnectionClosedError } = require('kafkajs/src/errors.js');
const shuffle: <T>(items: readonly T[]) => readonly T[] = require('kafkajs/src/utils/shuffle.js');

const checkPendingAfterMs = 10;

// As published it sets a timer after every response, with a negative time as a rule: 3 % of a core when idle, and a
// warning of Node's for each.
RequestQueue.prototype.scheduleCheckPendingRequests = function schedule(): void {
  if (this.throttleCheckTimeoutId !== null || this.pending.length === 0) return;
  const waitMs = Math.max(this.throttledUntil - Date.now(), checkPendingAfterMs);
  this.throttleCheckTimeoutId = setTimeout(() => {
    this.throttleCheckTimeoutId = null;
    this.checkPendingRequests();
  }, waitMs);
};

const { connect: open } = Connection.prototype;
const sizeBytes = 4;
const opening = new WeakMap<Connection, Promise<unknown>>();
// As published half an answer that a broken connection has left is taken for the beginning of what the next one brings:
// no answer is understood from there on, or the process ends. And two who need a connection at once open two: one is
// left open, and when the broker closes it minutes later, the other is taken for closed.
Connection.prototype.connect = function openOneEmpty(): Promise<unknown> {
  if (!opening.has(this) && !this.isConnected()) {
    Object.assign(this, { chunks: [], bytesBuffered: 0, bytesNeeded: sizeBytes });
    const opened = open.call(this).finally(() => opening.delete(this));
    opening.set(this, opened);
  }
  return opening.get(this) ?? Promise.resolve(true);
};

/** Those of brokers that have answered, and of whom no answer has been overdue since. */
const answering = new WeakSet<ConnectionPool>();

const { send } = ConnectionPool.prototype;
// As published a broker that keeps its connections and answers nothing is asked again and again, though others lead its
// partitions by now: who leads is asked anew only where a connection was closed. So it is when an answer is overdue.
// What comes over it later must not reach the next one. It ends by an error: kafkajs listens to nothing else that tells
// it of a socket which is destroyed, and would go on writing to that.
ConnectionPool.prototype.send = async function sendOrClose(request): Promise<unknown> {
  try {
    const answer = await send.call(this, request);
    answering.add(this);
    return answer;
  } catch (error) {
    if (!(error instanceof kafkajs.KafkaJSRequestTimeoutError)) throw error;
    answering.delete(this);
    const closed = new KafkaJSConnectionClosedError(error.message, { host: this.host, port: this.port });
    for (const connection of this.pool) {
      connection.rejectRequests(closed);
      connection.socket?.destroy(closed);
    }
    throw closed;
  }
};

const { findConnectedBroker, withBroker } = BrokerPool.prototype;
const findAnswering = ({ brokers }: BrokerPool): Broker | undefined =>
  shuffle(Object.values(brokers)).find((broker) => broker.isConnected() && answering.has(broker.connectionPool));
// As published who leads and who coordinates is asked of any broker that accepts connections. Those that answer come
// first, by chance: one that the other brokers cannot reach answers, too, and does not know who has taken over.
BrokerPool.prototype.findConnectedBroker = async function findAnsweringFirst(): Promise<Broker> {
  return findAnswering(this) ?? findConnectedBroker.call(this);
};
BrokerPool.prototype.withBroker = async function withAnsweringFirst(use): Promise<unknown> {
  const broker = findAnswering(this);
  const answer = broker && (await use({ nodeId: broker.nodeId, broker }).catch(() => null));
  return answer ?? withBroker.call(this, use);
};

const isOverdueOrClosed = (error: unknown): error is Error =>
  error instanceof kafkajs.KafkaJSRequestTimeoutError || error instanceof KafkaJSConnectionClosedError;

const { heartbeat, joinAndSync, leave } = ConsumerGroup.prototype;
// As published none is sent until a clock that was set back is where it was: the group goes on without this member,
// which goes on reading. And one coordinator is asked until the member ends, whoever coordinates the group by now.
ConsumerGroup.prototype.heartbeat = async function beat(options): Promise<void> {
  this.lastRequest = Math.min(this.lastRequest, Date.now());
  try {
    await heartbeat.call(this, options);
  } catch (error) {
    if (isOverdueOrClosed(error)) {
      this.coordinator = await this.cluster.findGroupCoordinator(this);
      if (this.offsetManager !== null) this.offsetManager.coordinator = this.coordinator;
    }
    throw error;
  }
};

/** Of each group the members that could not leave it, nor go on. */
const leftBehind = new Map<string, Set<string>>();

async function leavingBehind(group: GroupMember, work: () => Promise<void>): Promise<void> {
  const { groupId, memberId: before } = group;
  const ids = leftBehind.get(groupId) ?? new Set();
  leftBehind.set(groupId, ids);
  try {
    await work();
    if (before !== null) ids.delete(before);
  } catch (error) {
    if (group.memberId !== null) ids.add(group.memberId);
    throw error;
  }
}

// As published a consumer whose coordinator is gone joins anew as another member, and the whole group waits until the
// session of the one before has expired, which the next coordinator counts from its own beginning. So it goes on as the
// member that it was; a coordinator that does not know that one gives it a new id.
ConsumerGroup.prototype.leave = function leaveOrRemember(): Promise<void> {
  return leavingBehind(this, () => leave.call(this));
};
ConsumerGroup.prototype.joinAndSync = function joinAsBefore(): Promise<void> {
  const ids = leftBehind.get(this.groupId);
  const [id] = ids ?? [];
  if (this.memberId === null && id !== undefined) {
    ids?.delete(id);
    this.memberId = id;
  }
  return leavingBehind(this, () => joinAndSync.call(this));
};

// As published a batch without a visible record (markers, aborted transactions) counts as empty and never reaches
// `eachBatch`, so that nobody could make the offset after it durable. Nor does one that brought nothing although the
// log goes on: an open transaction holds it back, and nobody could tell.
Batch.prototype.isEmpty = function isEmpty(): boolean {
  return this.rawMessages.length === 0 && BigInt(this.fetchedOffset) >= BigInt(this.highWatermark);
};

const { connect, fetch, initProducerId, listOffsets } = Broker.prototype;
// As published a broker that accepts a connection and then answers nothing counts as connected, and no other is tried.
Broker.prototype.connect = async function connectOrClose(): Promise<void> {
  try {
    await connect.call(this);
  } catch (error) {
    if (!isOverdueOrClosed(error)) throw error;
    const notConnected = new kafkajs.KafkaJSConnectionError(error.message, { broker: this.brokerAddress });
    await this.disconnect();
    throw notConnected;
  }
};

// As published a broker that waits for new producer ids, of a controller that is frozen maybe, is asked again and again
// for 13 s. Any will do: who is refused at once connects anew, and asks another one.
Broker.prototype.initProducerId = async function initOrRefuse(request): Promise<unknown> {
  try {
    return await initProducerId.call(this, request);
  } catch (error) {
    const isWaiting = error instanceof kafkajs.KafkaJSProtocolError && error.type === 'GROUP_LOAD_IN_PROGRESS';
    if (!isWaiting || request.transactionalId !== undefined) throw error;
    const refused = new kafkajs.KafkaJSError(`${this.brokerAddress} has no producer id yet`);
    throw refused;
  }
};

const readUncommitted = 0;
// As published a partition ends where an open transaction begins, so that whoever has read up to there would take
// itself for one who knows all that was acknowledged.
Broker.prototype.listOffsets = function listAllOffsets(request): Promise<unknown> {
  return listOffsets.call(this, { ...request, isolationLevel: readUncommitted });
};

/** Nothing came of it although there is something to read: others have taken up the room of the answer. */
const hadNoRoom = (asked: FetchRequest, topicName: string, fetched: FetchedPartition): boolean => {
  const partitions = asked.topics.filter(({ topic }) => topic === topicName).flatMap((each) => each.partitions);
  const from = partitions.find(({ partition }) => partition === fetched.partition)?.fetchOffset ?? '0';
  return fetched.messages.length === 0 && BigInt(from) < BigInt(fetched.lastStableOffset);
};

// As published records of aborted transactions are taken for committed, where several were open at once. And who got
// nothing for want of room could not be told from whom an open transaction holds back: it counts as not asked for.
//
// Nor could anybody tell where a batch stands that cannot be unpacked: a broker answers for many partitions at once.
// Asked for alone, the partition that holds it shows.
Broker.prototype.fetch = async function fetchOrTellWhere(request): Promise<FetchAnswer> {
  try {
    const answer = await fetch.call(this, request);
    for (const response of answer.responses) {
      const { topicName, partitions } = response;
      response.partitions = partitions.filter((fetched) => !hadNoRoom(request, topicName, fetched));
      response.partitions.forEach(hideAborted);
    }
    return answer;
  } catch (error) {
    if (!(error instanceof UndecodableBatchError)) throw error;
    for (const { topic, partitions } of request.topics)
      for (const asked of partitions)
        try {
          await fetch.call(this, { ...request, maxWaitTime: 0, topics: [{ topic, partitions: [asked] }] });
        } catch (cause) {
          if (!(cause instanceof UndecodableBatchError)) throw cause;
          const place = `partition ${asked.partition} of ${topic}, at offset ${asked.fetchOffset} or behind it`;
          throw new UndecodableBatchError(`${cause.message}: ${place}`, { cause });
        }
    throw error;
  }
};

/**
 * An address for a client that opens its sockets by {@link openSocket}. kafkajs takes addresses apart at their first
 * colon, also `[::1]:9092`.
 */
export const withoutColons = (broker: string): string =>
  broker.replace(/^\[.+\]/, (address) => address.replaceAll(':', '-'));

const openAsPublished: ISocketFactory = require('kafkajs/src/network/socketFactory.js')();
export const openSocket: ISocketFactory = ({ host, ...rest }) => {
  const address = host.startsWith('[') ? host.slice(1, -1).replaceAll('-', ':') : host;
  const socket = openAsPublished({ ...rest, host: address });
  // An error about a name with several addresses says nothing by itself, and kafkajs passes on only what it says.
  socket.prependListener('error', (error) => {
    if (error instanceof AggregateError) error.message ||= error.errors.map((each: Error) => each.message).join('; ');
  });
  return socket;
};

const { CompressionCodecs, CompressionTypes } = kafkajs;
CompressionCodecs[CompressionTypes.GZIP] = () => ({ decompress: decompressGzip });
CompressionCodecs[CompressionTypes.Snappy] = () => ({ decompress: decompressSnappy });
CompressionCodecs[CompressionTypes.LZ4] = () => ({ decompress: decompressLz4Frame });
CompressionCodecs[CompressionTypes.ZSTD] = () => ({ decompress: decompressZstd });

export { kafkajs };
