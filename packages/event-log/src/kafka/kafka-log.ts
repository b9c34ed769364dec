/** The log on Apache Kafka. */
import type { ConnectionOptions } from 'node:tls';
import type { Admin, Kafka, LogEntry, SASLOptions } from 'kafkajs';
import { createAppenders } from '../appender.ts';
import type { EventLog, PartitionBounds, WriteLog } from '../event-log.ts';
import { LogUnavailableError } from '../event-log.ts';
import { consumeKafka } from './kafka-consumer.ts';
import { openProducer } from './kafka-producer.ts';
import { kafkajs, openSocket, withoutColons } from './kafkajs.ts';

export type KafkaSasl = Extract<
  SASLOptions,
  { mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512' | 'oauthbearer' }
>;

export interface KafkaLogOptions {
  readonly brokers: readonly string[];
  /** Names this process in the broker's logs and metrics. */
  readonly clientId: string;
  readonly tls?: ConnectionOptions | boolean;
  readonly sasl?: KafkaSasl;
  /** A member that is silent for so long loses its partitions. Statement timeouts must be below it. Default 10,000. */
  readonly sessionTimeoutMs?: number;
  readonly writeLog: WriteLog;
}

const defaultSessionTimeoutMs = 10_000;
const connectWithinMs = 3_000;
/** Long-polling requests bring their own, longer time. */
const answerWithinMs = 5_000;
/** All stated, since kafkajs takes other defaults when NODE_ENV is `test`. */
const retry = { initialRetryTime: 100, multiplier: 2, factor: 0.2, maxRetryTime: 1_000, retries: 3 };

/** Nothing is connected before the first use; whatever is lost is connected again. */
export function createKafkaLog(options: KafkaLogOptions): EventLog {
  const { brokers, clientId, tls, sasl, sessionTimeoutMs = defaultSessionTimeoutMs, writeLog } = options;

  const createClient = (): Kafka =>
    new kafkajs.Kafka({
      brokers: brokers.map(withoutColons),
      socketFactory: openSocket,
      clientId,
      ...(tls === undefined ? {} : { ssl: tls }),
      ...(sasl === undefined ? {} : { sasl: forOneClient(sasl) }),
      connectionTimeout: connectWithinMs,
      requestTimeout: answerWithinMs,
      retry,
      logCreator: () => (entry) => forward(entry, writeLog),
    });

  const appenders = createAppenders(() => openProducer(createClient()), writeLog);
  let connecting: Promise<Admin> | undefined;

  async function bounds(topic: string): Promise<PartitionBounds[]> {
    connecting ??= connectAdmin(createClient());
    const used = connecting;
    try {
      const admin = await used;
      const offsets = await admin.fetchTopicOffsets(topic);
      return offsets
        .map(({ partition, low, high }) => ({ partition, low: BigInt(low), high: BigInt(high) }))
        .sort((a, b) => a.partition - b.partition);
    } catch (cause) {
      if (connecting === used) {
        connecting = undefined;
        closeBroken(used);
      }
      throw new LogUnavailableError(`The bounds of ${topic} cannot be read`, { cause });
    }
  }

  function closeBroken(admin: Promise<Admin>): void {
    admin
      .then((connected) => connected.disconnect())
      .catch((error: unknown) => writeLog('debug', 'a broken admin connection did not close cleanly', { error }));
  }

  return {
    append: appenders.append,
    bounds,
    consume: (consumeOptions) => consumeKafka({ createClient, bounds, sessionTimeoutMs, writeLog }, consumeOptions),
    close: async () => {
      await appenders.close();
      if (connecting !== undefined) closeBroken(connecting);
      connecting = undefined;
    },
  };
}

/**
 * A copy, since kafkajs keeps a function with the first password it saw in the object that it is given. A token that
 * cannot be had counts as a connection that cannot be made: kafkajs tries again, and over a new one.
 */
function forOneClient(sasl: KafkaSasl): KafkaSasl {
  if (sasl.mechanism !== 'oauthbearer') return { ...sasl };
  const oauthBearerProvider = (): ReturnType<typeof sasl.oauthBearerProvider> =>
    sasl.oauthBearerProvider().catch((cause: Error) => {
      throw new kafkajs.KafkaJSConnectionError(`No token for the broker: ${cause.message}`);
    });
  return { ...sasl, oauthBearerProvider };
}

async function connectAdmin(kafka: Kafka): Promise<Admin> {
  const admin = kafka.admin();
  await admin.connect();
  return admin;
}

/** A step lower than kafkajs has it: it calls errors what it retries, and what does not pass reaches the caller. */
const levels = {
  [kafkajs.logLevel.ERROR]: 'warn',
  [kafkajs.logLevel.WARN]: 'info',
  [kafkajs.logLevel.INFO]: 'debug',
  [kafkajs.logLevel.DEBUG]: 'debug',
} as const;

function forward({ namespace, level, log }: LogEntry, writeLog: WriteLog): void {
  if (level === kafkajs.logLevel.NOTHING) return;
  const { message, timestamp: _, logger: library, ...fields } = log;
  writeLog(levels[level], message, { ...fields, from: `${library} ${namespace}` });
}
