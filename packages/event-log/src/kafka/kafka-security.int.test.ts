/** TLS and the SASL mechanisms against a broker that accepts nothing else. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort, type Kafka, startKafka } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { createRecorder, recordOf } from '../../test/log-contract.ts';
import { createKafkaLog, type KafkaLogOptions, type KafkaSasl } from './kafka-log.ts';
import { kafkajs } from './kafkajs.ts';

const run = promisify(execFile);
const silent = (): void => undefined;
const storePassword = 'store-secret';
const plain: KafkaSasl = { mechanism: 'plain', username: 'app', password: 'app-secret' };

const mechanisms: [KafkaSasl['mechanism'], KafkaSasl][] = [
  ['plain', plain],
  ['scram-sha-512', { mechanism: 'scram-sha-512', username: 'app', password: 'app-secret' }],
  ['oauthbearer', { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value: unsecuredToken() }) }],
];

/** What the broker's development validator accepts: a token without a signature. */
function unsecuredToken(): string {
  const nowSeconds = Math.floor(Date.now() / 1000);
  const parts = [{ alg: 'none' }, { sub: 'app', iat: nowSeconds, exp: nowSeconds + 600 }];
  return `${parts.map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')}.`;
}

describeWith(['kafka'], 'Kafka over TLS with SASL', () => {
  let directory: string;
  let kafka: Kafka;
  let options: Omit<KafkaLogOptions, 'sasl'>;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'kafka-security-'));
    const store = join(directory, 'broker.p12');
    const keytool = (...args: string[]) => run('keytool', [...args, '-keystore', store, '-storepass', storePassword]);
    const subject = ['-dname', 'CN=broker', '-ext', 'san=ip:127.0.0.1'];
    await keytool('-genkeypair', '-alias', 'broker', '-keyalg', 'RSA', '-storetype', 'PKCS12', ...subject);
    await keytool('-exportcert', '-rfc', '-alias', 'broker', '-file', join(directory, 'ca.pem'));

    const [port, controllerPort] = [await freePort(), await freePort()];
    kafka = await startKafka({ port, settings: brokerSettings(port, controllerPort, store) });
    const brokers = [`127.0.0.1:${port}`];
    options = {
      brokers,
      clientId: 'security',
      tls: { ca: await readFile(join(directory, 'ca.pem')) },
      writeLog: silent,
    };
    await createScramUser(brokers, store);
    await createTopic();
  });
  afterAll(async () => {
    await kafka?.stop();
    await rm(directory, { recursive: true });
  });

  async function createScramUser(brokers: readonly string[], store: string): Promise<void> {
    const client = join(directory, 'client.properties');
    const lines = [
      'security.protocol=SASL_SSL',
      'sasl.mechanism=PLAIN',
      `sasl.jaas.config=${loginModule('plain.Plain')} required username="app" password="app-secret";`,
      `ssl.truststore.location=${store}`,
      `ssl.truststore.password=${storePassword}`,
    ];
    await writeFile(client, lines.join('\n'));
    await run('java', [
      ...['-cp', kafka.javaClasspath, 'org.apache.kafka.tools.ConfigCommand'],
      ...['--bootstrap-server', String(brokers), '--command-config', client],
      ...['--alter', '--entity-type', 'users', '--entity-name', 'app'],
      ...['--add-config', 'SCRAM-SHA-512=[password=app-secret]'],
    ]);
  }

  async function createTopic(): Promise<void> {
    const { brokers, tls = false } = options;
    const client = new kafkajs.Kafka({ brokers: [...brokers], ssl: tls, sasl: { ...plain }, logCreator: () => silent });
    const admin = client.admin();
    await admin.connect();
    await admin.createTopics({ waitForLeaders: true, topics: [{ topic: 't', numPartitions: 1 }] });
    await admin.disconnect();
  }

  it.each(mechanisms)('appends and consumes with %s', async (mechanism, sasl) => {
    const log = createKafkaLog({ ...options, sasl });
    const [position] = await log.append([recordOf('t', mechanism)], 10_000);
    const offset = position?.offset ?? -1n;
    const recorder = createRecorder();
    recorder.nextOffsets.set(0, offset);
    const startAt = async () => [{ topic: 't', partition: 0, offset }];
    const consumer = log.consume({ group: mechanism, topics: ['t'], onBatch: recorder.onBatch, startAt });
    await recorder.untilApplied(1);
    expect(recorder.keys()).toEqual([mechanism]);
    await consumer.stop(5_000);
    await log.close();
  });

  it('waits for a token endpoint that is away', async () => {
    let asked = 0;
    const oauthBearerProvider = async () => {
      asked += 1;
      if (asked < 4) throw new Error('The token endpoint answered 503');
      return { value: unsecuredToken() };
    };
    const log = createKafkaLog({ ...options, sasl: { mechanism: 'oauthbearer', oauthBearerProvider } });
    const consumer = log.consume({ group: 'patient', topics: ['t'], onBatch: createRecorder().onBatch });
    await vi.waitFor(() => expect(consumer.isReady()).toBe(true), { timeout: 20_000, interval: 50 });
    expect(asked).toBeGreaterThanOrEqual(4);
    await consumer.stop(5_000);
    await log.close();
  });

  it('does not go on with a wrong password, and says why', async () => {
    const log = createKafkaLog({ ...options, sasl: { ...plain, password: 'wrong' } });
    const append = log.append([recordOf('t', 'k')], 3_000);
    await expect(append).rejects.toMatchObject({ cause: { name: 'KafkaJSSASLAuthenticationError' } });
    const consumer = log.consume({ group: 'wrong', topics: ['t'], onBatch: createRecorder().onBatch });
    await expect(consumer.done).rejects.toThrow('SASL');
    await log.close();
  });

  it('does not trust a broker whose certificate is unknown', async () => {
    const log = createKafkaLog({ ...options, tls: true, sasl: plain });
    const append = log.append([recordOf('t', 'k')], 5_000);
    await expect(append).rejects.toMatchObject({ cause: { message: expect.stringContaining('self-signed') } });
    await log.close();
  });
});

const loginModule = (name: string): string => `org.apache.kafka.common.security.${name}LoginModule`;

function brokerSettings(port: number, controllerPort: number, store: string): Record<string, string> {
  const users = 'username="broker" password="broker-secret" user_broker="broker-secret" user_app="app-secret"';
  return {
    listeners: `SASL_SSL://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `SASL_SSL://127.0.0.1:${port}`,
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    'listener.security.protocol.map': 'SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT',
    'inter.broker.listener.name': 'SASL_SSL',
    'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-512,OAUTHBEARER',
    'sasl.mechanism.inter.broker.protocol': 'PLAIN',
    'listener.name.sasl_ssl.plain.sasl.jaas.config': `${loginModule('plain.Plain')} required ${users};`,
    'listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config': `${loginModule('scram.Scram')} required;`,
    'listener.name.sasl_ssl.oauthbearer.sasl.jaas.config': `${loginModule('oauthbearer.OAuthBearer')} required;`,
    'ssl.keystore.location': store,
    'ssl.keystore.password': storePassword,
    'ssl.truststore.location': store,
    'ssl.truststore.password': storePassword,
  };
}
