import { once } from 'node:events';
import { createRequire } from 'node:module';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { UndecodableBatchError } from './codecs.ts';
import { createKafkaLog } from './kafka-log.ts';
import { kafkajs, openSocket } from './kafkajs.ts';

const require = createRequire(import.meta.url);

describe('the mended request queue', () => {
  const RequestQueue = require('kafkajs/src/network/requestQueue/index.js');
  const nothing = (): void => undefined;
  const createQueue = (maxInFlightRequests: number | null) =>
    new RequestQueue({
      maxInFlightRequests,
      requestTimeout: 1_000,
      enforceRequestTimeout: false,
      clientId: 'test',
      broker: '127.0.0.1:9092',
      logger: { debug: nothing, warn: nothing },
    });
  const request = (correlationId: number, sent: number[]) => ({
    entry: { correlationId, resolve: nothing, reject: nothing },
    expectResponse: true,
    sendRequest: () => sent.push(correlationId),
  });

  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('sets no timer while nothing is pending', () => {
    const queue = createQueue(null);
    queue.push(request(1, []));
    queue.fulfillRequest({ correlationId: 1, payload: Buffer.alloc(0), size: 0 });
    expect(vi.getTimerCount()).toBe(0);
  });

  it('sends what is pending whenever a throttling is over, and not before', () => {
    const sent: number[] = [];
    const queue = createQueue(null);
    for (const before of [0, 2]) {
      queue.maybeThrottle(500);
      for (const id of [before + 1, before + 2]) queue.push(request(id, sent));
      expect(vi.getTimerCount()).toBe(1);
      vi.advanceTimersByTime(490);
      expect(sent).toHaveLength(before);
      vi.advanceTimersByTime(20);
      expect(sent).toHaveLength(before + 2);
      expect(vi.getTimerCount()).toBe(0);
    }
  });

  it('sends what is pending when an answer makes room', () => {
    const sent: number[] = [];
    const queue = createQueue(1);
    queue.push(request(1, sent));
    queue.push(request(2, sent));
    expect(sent).toEqual([1]);
    queue.fulfillRequest({ correlationId: 1, payload: Buffer.alloc(0), size: 0 });
    expect(sent).toEqual([1, 2]);
  });
});

describe('the mended batch', () => {
  const Batch = require('kafkajs/src/consumer/batch.js');
  const marker = { offset: '7', isControlRecord: true };

  it('is not empty when it holds a marker only, and its last offset is the marker’s', () => {
    const batch = new Batch('t', '7', {
      partition: 0,
      highWatermark: '8',
      abortedTransactions: [],
      messages: [marker],
    });
    expect([batch.messages, batch.isEmpty(), batch.lastOffset()]).toEqual([[], false, '7']);
  });

  it('is empty when nothing was fetched', () => {
    const batch = new Batch('t', '7', { partition: 0, highWatermark: '7', abortedTransactions: [], messages: [] });
    expect(batch.isEmpty()).toBe(true);
  });

  it('is not empty when nothing was fetched although the log goes on', () => {
    const batch = new Batch('t', '7', { partition: 0, highWatermark: '9', abortedTransactions: [], messages: [] });
    expect(batch.isEmpty()).toBe(false);
  });
});

describe('the mended fetch', () => {
  const Broker = require('kafkajs/src/broker/index.js');
  type Send = (request: { readonly maxWaitTime: number }) => Promise<unknown>;
  const brokerThat = (send: Send) => {
    const broker = new Broker({ connectionPool: { send }, logger: { namespace: () => undefined } });
    return Object.assign(broker, { lookupRequest: () => (request: unknown) => request });
  };
  const asked = (topic: string, ...fetchOffsets: string[]) => ({
    topic,
    partitions: fetchOffsets.map((fetchOffset, partition) => ({ partition, fetchOffset })),
  });

  it('leaves out who had no room in the answer, and hides what was aborted', async () => {
    const aborted = { offset: '5', batchContext: { producerId: '1', inTransaction: true }, isControlRecord: false };
    const fetched = (partition: number, lastStableOffset: string, ...messages: object[]) => ({
      ...{ partition, lastStableOffset, messages },
      abortedTransactions: messages.map(() => ({ producerId: '1', firstOffset: '5' })),
    });
    const responses = [
      { topicName: 't', partitions: [fetched(0, '9'), fetched(1, '5'), fetched(2, '9', aborted)] },
      { topicName: 'u', partitions: [fetched(0, '9')] },
    ];
    const broker = brokerThat(async () => ({ responses }));
    const answer = await broker.fetch({ topics: [asked('t', '5', '5', '5'), asked('u', '9')] });
    expect(answer.responses).toMatchObject([
      { partitions: [{ partition: 1 }, { partition: 2, messages: [{ offset: '5', isControlRecord: true }] }] },
      { partitions: [{ partition: 0 }] },
    ]);
  });

  const unfit = new UndecodableBatchError('It cannot be unpacked');
  const broken = new kafkajs.KafkaJSConnectionError('Connection error: ECONNRESET');
  it.each([
    ['where a batch stands that is unfit', [unfit, null, unfit], /^It .+: partition 1 of t, at offset 7 or behind it$/],
    ['that one is where none shows alone', [unfit, null, null], /^It cannot be unpacked$/],
    ['what else happens meanwhile', [unfit, broken], /ECONNRESET$/],
    ['what else happens', [broken], /ECONNRESET$/],
  ])('tells %s', async (_, outcomes, message) => {
    const waitsMs: number[] = [];
    const broker = brokerThat(async ({ maxWaitTime }) => {
      const outcome = outcomes[waitsMs.push(maxWaitTime) - 1];
      if (outcome !== null) throw outcome;
      return { responses: [] };
    });
    await expect(broker.fetch({ maxWaitTime: 500, topics: [asked('t', '5', '7')] })).rejects.toThrow(message);
    expect(waitsMs).toEqual(outcomes.map((_outcome, at) => (at === 0 ? 500 : 0)));
  });
});

describe('the mended heartbeat', () => {
  const ConsumerGroup = require('kafkajs/src/consumer/consumerGroup.js');

  beforeEach(() => void vi.useFakeTimers({ now: Date.UTC(2026, 0, 1, 12), toFake: ['Date'] }));
  afterEach(() => void vi.useRealTimers());

  it('goes on within its interval when the clock was set back, and not at each turn', async () => {
    const sent = vi.fn();
    const logger = { namespace: () => undefined };
    const group = new ConsumerGroup({ logger, instrumentationEmitter: { emit: () => undefined } });
    Object.assign(group, { memberId: 'member', coordinator: { heartbeat: sent } });
    const beatAt = async (hour: number, minute: number, second: number): Promise<number> => {
      vi.setSystemTime(Date.UTC(2026, 0, 1, hour, minute, second));
      await group.heartbeat({ interval: 2_000 });
      return sent.mock.calls.length;
    };
    expect(await beatAt(12, 0, 2)).toBe(1);
    expect(await beatAt(11, 0, 0)).toBe(1);
    expect(await beatAt(11, 0, 2)).toBe(2);
    expect(await beatAt(11, 0, 3)).toBe(2);
    expect(await beatAt(11, 0, 4)).toBe(3);
  });

  it('goes to who coordinates the group by now, where who did so has not answered', async () => {
    const { KafkaJSConnectionClosedError } = require('kafkajs/src/errors.js');
    const logger = { namespace: () => undefined };
    const [frozen, next] = [vi.fn().mockRejectedValue(new KafkaJSConnectionClosedError('overdue')), vi.fn()];
    const cluster = { findGroupCoordinator: async () => ({ heartbeat: next }) };
    const group = new ConsumerGroup({ logger, cluster, instrumentationEmitter: { emit: () => undefined } });
    const coordinator = { heartbeat: frozen };
    Object.assign(group, { memberId: 'member', coordinator, offsetManager: { coordinator } });
    await expect(group.heartbeat({ interval: 0 })).rejects.toThrow('overdue');
    await group.heartbeat({ interval: 0 });
    expect([frozen, next].map(({ mock }) => mock.calls.length)).toEqual([1, 1]);
    expect(group.offsetManager.coordinator.heartbeat).toBe(next);
  });
});

const settingsFor = async (server: Server) => {
  server.listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const nothing = (): void => undefined;
  const logger = { debug: nothing, error: nothing, warn: nothing, namespace: () => logger };
  const { port } = server.address() as AddressInfo;
  const timeouts = { connectionTimeout: 5_000, requestTimeout: 5_000 };
  return { host: '127.0.0.1', port, logger, socketFactory: openSocket, ...timeouts };
};

const openConnection = async (server: Server) => {
  const Connection = require('kafkajs/src/network/connection.js');
  const connection = new Connection(await settingsFor(server));
  onTestFinished(() => connection.disconnect());
  return connection;
};

/** An answer of 96 bytes to what was asked. */
const answerTo = (asked: Buffer): Buffer => {
  const answer = Buffer.alloc(100);
  answer.writeInt32BE(96);
  asked.copy(answer, 4, 8, 12);
  return answer;
};

const question = () => {
  const Encoder = require('kafkajs/src/protocol/encoder.js');
  return {
    request: { apiKey: 18, apiVersion: 0, apiName: 'ApiVersions', encode: async () => new Encoder() },
    response: { decode: async (answer: Buffer) => answer, parse: async (answer: Buffer) => answer.length },
  };
};

it('whoever needs a connection that is being made waits for it: a second one would be left open', async () => {
  const connection = await openConnection(createServer());
  const open = vi.spyOn(connection, 'socketFactory');
  await Promise.all([connection.connect(), connection.connect()]);
  expect(open).toHaveBeenCalledOnce();
  await connection.disconnect();
  await connection.connect();
  expect(open).toHaveBeenCalledTimes(2);
});

it('half an answer that a broken connection has left is no part of what the next one brings', async () => {
  const answers: ((answer: Buffer, socket: Socket) => void)[] = [
    (answer, socket) => socket.write(answer.subarray(0, 50), () => setTimeout(() => socket.resetAndDestroy(), 50)),
    (answer, socket) => socket.write(answer),
  ];
  const server = createServer((socket) =>
    socket.on('data', (asked) => void answers.shift()?.(answerTo(asked), socket)),
  );
  const connection = await openConnection(server);
  const ask = async (): Promise<string> => {
    await connection.connect();
    return connection.send(question());
  };
  await expect(ask()).rejects.toThrow('ECONNRESET');
  expect(await ask()).toBe(92);
});

it('a broker whose answer is overdue is asked again over a new connection', async () => {
  const ConnectionPool = require('kafkajs/src/network/connectionPool.js');
  let isFrozen = true;
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    if (isFrozen) socket.resume();
    else socket.on('data', (asked) => socket.write(answerTo(asked)));
  });
  const pool = new ConnectionPool({ ...(await settingsFor(server)), requestTimeout: 100 });
  onTestFinished(() => pool.destroy());
  await expect(pool.send(question())).rejects.toMatchObject({ name: 'KafkaJSConnectionClosedError' });
  isFrozen = false;
  await vi.waitFor(() => expect(pool.isConnected()).toBe(false));
  expect(await pool.send({ ...question(), requestTimeout: 5_000 })).toBe(92);
});

it('a broker that does not answer in time is disconnected, and passed over for any that answers', async () => {
  const ConnectionPool = require('kafkajs/src/network/connectionPool.js');
  const BrokerPool = require('kafkajs/src/cluster/brokerPool.js');
  const destroy = vi.fn();
  const createBroker = (nodeId: number, answer: () => Promise<void>) => {
    const connection = { send: answer, rejectRequests: vi.fn(), socket: { destroy } };
    const connectionPool = Object.create(ConnectionPool.prototype);
    Object.assign(connectionPool, { pool: [connection], getConnectionByRequest: async () => connection });
    return { nodeId, connectionPool, isConnected: () => true };
  };
  const silent = vi.fn().mockResolvedValueOnce(undefined);
  silent.mockRejectedValueOnce(new kafkajs.KafkaJSRequestTimeoutError('overdue'));
  const frozen = createBroker(1, silent);
  const well = [2, 3].map((nodeId) => createBroker(nodeId, async () => undefined));
  for (const { connectionPool } of well) await connectionPool.send({});
  await frozen.connectionPool.send({});
  await expect(frozen.connectionPool.send({})).rejects.toMatchObject({ name: 'KafkaJSConnectionClosedError' });
  expect(frozen.connectionPool.pool[0].rejectRequests).toHaveBeenCalledOnce();
  expect(destroy).toHaveBeenCalledOnce();

  const pool = Object.create(BrokerPool.prototype);
  const brokers = Object.fromEntries([frozen, ...well].map((broker) => [broker.nodeId, broker]));
  Object.assign(pool, { brokers, connectBroker: async () => undefined });
  const [found, used] = [new Set(), new Set()];
  for (let at = 0; at < 50; at += 1) {
    found.add((await pool.findConnectedBroker()).nodeId);
    used.add(await pool.withBroker(async ({ nodeId }: { nodeId: number }) => nodeId));
  }
  expect([found, used]).toEqual([new Set([2, 3]), new Set([2, 3])]);
});

it('a producer does not wait for a broker that waits for producer ids: another one may have some', async () => {
  const Broker = require('kafkajs/src/broker/index.js');
  const { createErrorFromCode } = require('kafkajs/src/protocol/error.js');
  const loading = 14;
  const send = vi.fn().mockRejectedValue(createErrorFromCode(loading));
  const broker = Object.create(Broker.prototype);
  Object.assign(broker, { brokerAddress: 'one:9092', connectionPool: { send }, lookupRequest: () => () => undefined });
  const cluster = { refreshMetadataIfNecessary: async () => undefined, findControllerBroker: async () => broker };
  const logger = { debug: () => undefined };
  const eosManager = require('kafkajs/src/producer/eosManager/index.js')({ logger, cluster, transactional: false });
  await expect(eosManager.initProducerId()).rejects.toThrow('one:9092 has no producer id yet');
  expect(send).toHaveBeenCalledOnce();
});

describe('the mended member of a group', () => {
  const ConsumerGroup = require('kafkajs/src/consumer/consumerGroup.js');

  /** Members of one group. Its coordinator notes by which ids they join, and gives one to who has none. */
  const givenGroup = (groupId: string) => {
    const joinedAs: string[] = [];
    const group = { isAway: false };
    const answer = async (): Promise<void> => {
      if (group.isAway) throw new Error('The coordinator is away');
    };
    const coordinator = {
      joinGroup: async ({ memberId }: { readonly memberId: string }) => {
        await answer();
        joinedAs.push(memberId);
        return { memberId: memberId || `id ${joinedAs.length}` };
      },
      syncGroup: async () => ({ memberAssignment: Buffer.alloc(0) }),
      leaveGroup: answer,
    };
    const logger = { namespace: () => logger, debug: () => undefined, info: () => undefined };
    const createMember = () =>
      new ConsumerGroup({
        ...{ groupId, topics: [], topicConfigurations: {}, assigners: [], retry: { retries: 0 }, logger },
        instrumentationEmitter: { emit: () => undefined },
        cluster: { committedOffsets: () => ({}), findGroupCoordinator: async () => coordinator },
      });
    return { joinedAs, group, createMember };
  };

  it('goes on as the one before that could not leave, and no other does', async () => {
    const { joinedAs, group, createMember } = givenGroup('left behind');
    const before = createMember();
    await before.joinAndSync();
    group.isAway = true;
    await expect(before.leave()).rejects.toThrow('away');
    await expect(createMember().joinAndSync()).rejects.toThrow('away');
    group.isAway = false;
    await Promise.all([createMember().joinAndSync(), createMember().joinAndSync()]);
    expect(joinedAs).toEqual(['', 'id 1', '']);
  });

  it('stays who it is, and nobody goes on as one that goes on itself', async () => {
    const { joinedAs, group, createMember } = givenGroup('goes on');
    const [first, second] = [createMember(), createMember()];
    for (const member of [first, second]) await member.joinAndSync();
    group.isAway = true;
    await expect(first.joinAndSync()).rejects.toThrow('away');
    group.isAway = false;
    for (const member of [second, first, createMember()]) await member.joinAndSync();
    expect(joinedAs).toEqual(['', '', 'id 2', 'id 1', '']);
  });
});

it.each([false, true])('a broker is found by an address of IPv6, with TLS: %s', async (tls) => {
  const log = createKafkaLog({ brokers: ['[::1]:1'], clientId: 'test', tls, writeLog: () => undefined });
  const error = await log.bounds('t').catch(({ cause }: Error) => cause);
  expect(error).toHaveProperty('message', expect.stringMatching(/connect \w+ ::1:1\b/));
});

it('of a broker with several addresses, what each of them said is told', async () => {
  const socket = openSocket({ host: '127.0.0.1', port: 1, ssl: {}, onConnect: () => undefined });
  const failed = once(socket, 'error');
  socket.destroy(new AggregateError([new Error('refused'), new Error('unreachable')]));
  expect(await failed).toMatchObject([{ message: 'refused; unreachable' }]);
});

it.each(['GZIP', 'Snappy', 'LZ4', 'ZSTD'] as const)(
  '%s is unpacked by a codec that ends the consumer',
  async (name) => {
    const codec = kafkajs.CompressionCodecs[kafkajs.CompressionTypes[name]]();
    await expect(codec.decompress(Buffer.alloc(10, 0xff))).rejects.toThrow(UndecodableBatchError);
  },
);

it('a `send` succeeds without a partition whose leader moved to a broker that had answered: producers are told so', async () => {
  const createSend = require('kafkajs/src/producer/sendMessages.js');
  const { createErrorFromCode } = require('kafkajs/src/protocol/error.js');
  const notLeader = 6;
  const known = { 0: 'one', 1: 'other' };
  const written: number[] = [];
  const brokers = ['one', 'other'].map((nodeId) => ({
    nodeId,
    produce: async ({ topicData }: { topicData: { topic: string; partitions: { partition: number }[] }[] }) => {
      if (nodeId === 'other') throw createErrorFromCode(notLeader);
      const topics = topicData.map(({ topic, partitions }) => ({ topicName: topic, partitions }));
      written.push(...topics.flatMap(({ partitions }) => partitions.map(({ partition }) => partition)));
      return { topics };
    },
  }));
  const send = createSend({
    logger: { debug: () => undefined, error: () => undefined },
    partitioner: ({ message }: { message: { key: string } }) => Number(message.key),
    retrier: require('kafkajs/src/retry/index.js')({ initialRetryTime: 1, retries: 5 }),
    eosManager: {
      acquireBrokerLock: async () => undefined,
      releaseBrokerLock: async () => undefined,
      isTransactional: () => false,
      getSequence: () => 0,
      updateSequence: () => undefined,
      getProducerId: () => -1,
      getProducerEpoch: () => 0,
    },
    cluster: {
      isConnected: () => true,
      addMultipleTargetTopics: async () => undefined,
      refreshMetadataIfNecessary: async () => undefined,
      refreshMetadata: async () => Object.assign(known, { 1: 'one' }),
      findTopicPartitionMetadata: () => [0, 1].map((partitionId) => ({ partitionId })),
      findLeaderForPartitions: () => Object.groupBy([0, 1], (partition) => known[partition as 0 | 1]),
      findBroker: async (asked: { nodeId: string }) => brokers.find(({ nodeId }) => nodeId === asked.nodeId),
    },
  });
  const messages = ['0', '1'].map((key) => ({ key, value: key }));
  expect(await send({ acks: -1, timeout: 100, topicMessages: [{ topic: 't', messages }] })).toHaveLength(1);
  expect(written).toEqual([0]);
});
