import { readFileSync } from 'node:fs';
import type { Pool } from 'pg';
import { z } from 'zod';
import { createEmbeddedLog } from './embedded/embedded-log.ts';
import type { EventLog, WriteLog } from './event-log.ts';
import type { KafkaLogOptions, KafkaSasl } from './kafka/kafka-log.ts';

const tokenTimeoutMs = 5_000;

const isBroker = (text: string): boolean => {
  const [, port = '0'] = /^(?:[^\s:/]+|\[[0-9a-fA-F:]+\]):(\d{1,5})$/.exec(text) ?? [];
  return Number(port) > 0 && Number(port) <= 65_535;
};

const Brokers = z.string().transform((text, context) => {
  const brokers = text.split(',').map((broker) => broker.trim());
  if (brokers.every(isBroker)) return brokers;
  context.addIssue({ code: 'custom', message: 'must be host:port, several separated by commas' });
  return z.NEVER;
});

const Environment = z.object({
  KAFKA_BROKERS: Brokers.optional().describe(
    'host:port, several separated by commas; without it the log is kept in PostgreSQL',
  ),
  KAFKA_TLS: z
    .stringbool()
    .optional()
    .describe('Whether to speak TLS with the brokers; on by default where KAFKA_TLS_CA_FILE is set'),
  KAFKA_TLS_CA_FILE: z.string().optional().describe("PEM file of the brokers' authority, where it is not a public one"),
  KAFKA_SASL_MECHANISM: z
    .enum(['plain', 'scram-sha-256', 'scram-sha-512', 'oauthbearer'])
    .optional()
    .describe('How to authenticate with the brokers; not at all by default, but then no account may be set'),
  KAFKA_SASL_USERNAME: z.string().optional().describe('User; the client id for oauthbearer'),
  KAFKA_SASL_PASSWORD: z.string().optional().describe('Password; the client secret for oauthbearer'),
  KAFKA_SASL_TOKEN_URL: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe('OAuth token endpoint, for oauthbearer'),
  NODE_ENV: z.string().optional().describe('With `production` KAFKA_BROKERS must be set'),
});

const TokenAnswer = z.object({ access_token: z.string().min(1) });

/** RFC 6749, client credentials; kafkajs asks again whenever it authenticates. */
const oauthBearerProvider = (url: string, id: string, secret: string) => async (): Promise<{ value: string }> => {
  const response = await fetch(url, {
    method: 'POST',
    body: new URLSearchParams({ grant_type: 'client_credentials', client_id: id, client_secret: secret }),
    redirect: 'error',
    signal: AbortSignal.timeout(tokenTimeoutMs),
  });
  if (!response.ok) throw new Error(`The token endpoint answered ${response.status}`);
  return { value: TokenAnswer.parse(await response.json()).access_token };
};

/** The settings by which both services know the event log; a service combines it with its own by `.and()`. */
export const LogSettings = Environment.transform((env, context) => {
  const fault = (name: keyof typeof env, message: string): void =>
    context.addIssue({ code: 'custom', path: [name], message });
  const readTls = (): NonNullable<KafkaLogOptions['tls']> => {
    const { KAFKA_TLS_CA_FILE: file, KAFKA_TLS: isOn = file !== undefined } = env;
    if (!isOn || file === undefined) return isOn;
    try {
      return { ca: readFileSync(file, 'utf8') };
    } catch {
      fault('KAFKA_TLS_CA_FILE', 'must be a file that can be read');
      return isOn;
    }
  };
  const readSasl = (): KafkaSasl | undefined => {
    const {
      KAFKA_SASL_MECHANISM: mechanism,
      KAFKA_SASL_USERNAME: username,
      KAFKA_SASL_PASSWORD: password,
      KAFKA_SASL_TOKEN_URL: url,
    } = env;
    if (mechanism === undefined) {
      if (username !== undefined || password !== undefined)
        fault('KAFKA_SASL_MECHANISM', 'must be set where an account is: without it nobody authenticates');
      return undefined;
    }
    if (username === undefined) fault('KAFKA_SASL_USERNAME', `must be set for ${mechanism}`);
    if (password === undefined) fault('KAFKA_SASL_PASSWORD', `must be set for ${mechanism}`);
    if (mechanism === 'oauthbearer' && url === undefined) fault('KAFKA_SASL_TOKEN_URL', `must be set for ${mechanism}`);
    if (username === undefined || password === undefined) return undefined;
    if (mechanism !== 'oauthbearer') return { mechanism, username, password };
    return url === undefined
      ? undefined
      : { mechanism, oauthBearerProvider: oauthBearerProvider(url, username, password) };
  };

  const { KAFKA_BROKERS: brokers } = env;
  if (brokers === undefined) {
    if (env.NODE_ENV === 'production') fault('KAFKA_BROKERS', 'must be set in production');
    return { log: { kind: 'embedded' as const } };
  }
  const tls = readTls();
  const sasl = readSasl();
  return { log: { kind: 'kafka' as const, brokers, tls, ...(sasl !== undefined && { sasl }) } };
});
export type LogSettings = z.infer<typeof LogSettings>;

export interface OpenLogOptions {
  readonly clientId: string;
  /** Holds the embedded log; owned by the caller. */
  readonly pool: Pool;
  readonly writeLog: WriteLog;
}

/**
 * The log that the settings choose. The embedded one needs `prepareEmbeddedLog` before its first use, and does without
 * the 5 MB of a Kafka client.
 */
export const openEventLog = async (
  { log }: LogSettings,
  { clientId, pool, writeLog }: OpenLogOptions,
): Promise<EventLog> => {
  if (log.kind === 'embedded') return createEmbeddedLog({ pool, writeLog });
  const { kind: _, ...connection } = log;
  const { createKafkaLog } = await import('./kafka/kafka-log.ts');
  return createKafkaLog({ ...connection, clientId, writeLog });
};
