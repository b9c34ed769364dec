import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import kafkajs from 'kafkajs';
import { cached } from './cache.ts';
import { fetchWithDependencies, findJava } from './maven.ts';
import { type Part, type Report, silently } from './part.ts';
import { freePort } from './ports.ts';
import { acceptsConnections, runCommand, runDirectory, startProcess } from './process-part.ts';

const kafkaVersion = '4.4.0';
const log4jVersion = '2.24.3';

export interface KafkaOptions {
  readonly port?: number;
  /** Broker settings, `name: value`, above the defaults. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly report?: Report;
}

export interface TopicToCreate {
  readonly topic: string;
  readonly partitions: number;
  readonly config?: Readonly<Record<string, string>>;
}

export interface Kafka extends Part {
  readonly brokers: readonly string[];
  readonly port: number;
  createTopics(topics: readonly TopicToCreate[]): Promise<void>;
  /** For `java -cp`: the broker, its tools, and the Java clients with all codecs. */
  readonly javaClasspath: string;
}

/** One Kafka broker (KRaft, no ZooKeeper) on 127.0.0.1, with its own data directory. */
export async function startKafka(options: KafkaOptions = {}): Promise<Kafka> {
  const { java, javaClasspath } = await kafkaProgram(options.report ?? silently);
  const port = options.port ?? (await freePort());
  const controllerPort = await freePort();
  const run = runDirectory('kafka');

  const properties = join(run, 'server.properties');
  const settings = {
    ...brokerSettings(port, controllerPort),
    'log.dirs': join(run, 'data').replaceAll('\\', '/'),
    ...options.settings,
  };
  await writeFile(properties, lines(settings));
  await writeFile(join(run, 'log4j2.properties'), lines(loggingSettings));
  const classpath = [javaClasspath, run].join(delimiter);
  const clusterId = randomBytes(16).toString('base64url');
  const format = ['kafka.tools.StorageTool', 'format', `--cluster-id=${clusterId}`, '--config', properties];
  await runCommand({ command: java, args: ['-cp', classpath, ...format] });

  const part = await startProcess({
    name: `Kafka ${kafkaVersion}`,
    command: java,
    args: ['-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', ...['-cp', classpath, 'kafka.Kafka', properties]],
    logFile: join(run, 'kafka.log'),
    isReady: () => acceptsConnections(port),
    startTimeoutMs: 90_000,
    stopTimeoutMs: 30_000,
  });
  const brokers = [`127.0.0.1:${port}`];
  return { ...part, brokers, port, javaClasspath, createTopics: (topics) => createTopics(brokers, topics) };
}

async function kafkaProgram(report: Report): Promise<{ java: string; javaClasspath: string }> {
  const java = await findJava('Kafka', 'What needs a real broker is left out.');
  const jars = await cached(`kafka-${kafkaVersion}`, report, async (directory) => {
    report(`fetching Kafka ${kafkaVersion} (54 MB), once …`);
    await fetchWithDependencies(
      [
        `org.apache.kafka:kafka_2.13:${kafkaVersion}`,
        `org.apache.kafka:kafka-tools:${kafkaVersion}`,
        `org.apache.logging.log4j:log4j-slf4j-impl:${log4jVersion}`,
        `org.apache.logging.log4j:log4j-core:${log4jVersion}`,
      ],
      directory,
    );
  });
  return { java, javaClasspath: join(jars, '*') };
}

function brokerSettings(port: number, controllerPort: number): Record<string, string> {
  return {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    // A killed broker may come back once its old session has expired: 9 seconds by default.
    'broker.heartbeat.interval.ms': '300',
    'broker.session.timeout.ms': '1500',
    'auto.create.topics.enable': 'false',
    'offsets.topic.num.partitions': '5',
    'offsets.topic.replication.factor': '1',
    'transaction.state.log.num.partitions': '5',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'group.initial.rebalance.delay.ms': '0',
  };
}

const loggingSettings = {
  'appender.console.type': 'Console',
  'appender.console.name': 'console',
  'appender.console.layout.type': 'PatternLayout',
  'appender.console.layout.pattern': '%d{ISO8601} %p %c %m%n',
  'rootLogger.level': 'warn',
  'rootLogger.appenderRef.console.ref': 'console',
  'logger.server.name': 'kafka.server',
  'logger.server.level': 'info',
};

function lines(properties: Readonly<Record<string, string>>): string {
  return Object.entries(properties)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}

async function createTopics(brokers: string[], topics: readonly TopicToCreate[]): Promise<void> {
  const admin = new kafkajs.Kafka({ brokers, logLevel: kafkajs.logLevel.NOTHING }).admin();
  await admin.connect();
  try {
    await admin.createTopics({
      waitForLeaders: true,
      topics: topics.map(({ topic, partitions, config = {} }) => ({
        topic,
        numPartitions: partitions,
        replicationFactor: 1,
        configEntries: Object.entries(config).map(([name, value]) => ({ name, value })),
      })),
    });
  } finally {
    await admin.disconnect();
  }
}
