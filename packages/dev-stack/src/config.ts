import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { StartFailure } from './start-failure.ts';

/** The checkout: services are started in it. */
export const workspaceRoot = fileURLToPath(new URL('../../../', import.meta.url));

const port = (fallback: number, what: string) =>
  z.coerce.number().int().min(1).max(65_535).default(fallback).describe(what);

const Ports = z.object({
  API_PORT: port(8080, 'api: routes of clients and producers, /docs'),
  API_OPS_PORT: port(8081, 'api: ops'),
  WORKER_PORT: port(8090, 'room-worker: webhooks'),
  WORKER_OPS_PORT: port(8091, 'room-worker: ops'),
  DEMO_PORT: port(8000, 'demo page'),
  ISSUER_PORT: port(8180, 'dev issuer'),
  GATE_PORT: port(7879, "LiveKit's signalling behind the gate, for clients"),
  LIVEKIT_PORT: port(7880, 'LiveKit: its server API, for the services'),
  LIVEKIT_TCP_PORT: port(7881, 'LiveKit: media over TCP'),
  LIVEKIT_UDP_PORT: port(7882, 'LiveKit: media over UDP'),
  POSTGRES_PORT: port(54_329, 'PostgreSQL'),
});

export type PortName = keyof z.output<typeof Ports>;

const given = (what: string) => z.string().optional().describe(what);

const Environment = Ports.extend({
  DATA_DIR: z
    .string()
    .default(join(workspaceRoot, '.data'))
    .transform((path) => resolve(path))
    .describe('Where everything is kept'),
  DATABASE_URL: given('PostgreSQL of yours, instead of the embedded one'),
  KAFKA_BROKERS: given('Kafka of yours, instead of the log in PostgreSQL'),
  OIDC_ISSUER: given('Keycloak of yours, instead of the dev issuer'),
  OIDC_JWKS_URI: given(''),
  LIVEKIT_URL: given('LiveKit of yours; then LIVEKIT_KEYS says its keys, "key: secret"'),
  LIVEKIT_API_URL: given(''),
  LIVEKIT_KEYS: given(''),
  NODE_ENV: z.string().optional(),
});

export type StartSettings = z.output<typeof Environment>;

/** Settings of `npm start`; empty variables count as unset. @throws {StartFailure} that names all faults */
export function readStartSettings(env: NodeJS.ProcessEnv): StartSettings {
  const parsed = Environment.safeParse(Object.fromEntries(Object.entries(env).filter(([, value]) => value !== '')));
  if (!parsed.success) {
    const faults = parsed.error.issues.map(({ path, message }) => `  ${path.join('.')}: ${message}`);
    throw new StartFailure(['These settings are wrong:', ...faults].join('\n'));
  }
  const settings = parsed.data;
  if (settings.NODE_ENV === 'production') {
    throw new StartFailure(
      'This starts everything for development, with well-known passwords. In production start the services themselves: ' +
        'services/api/src/main.ts and services/room-worker/src/main.ts.',
    );
  }
  if (settings.LIVEKIT_URL !== undefined && settings.LIVEKIT_KEYS === undefined) {
    throw new StartFailure('LIVEKIT_URL is set: LIVEKIT_KEYS must say the keys of that LiveKit, "key: secret".');
  }
  return settings;
}

/** A port that is going to be listened on here. */
export interface OwnPort {
  readonly name: PortName;
  readonly number: number;
  readonly what: string;
  readonly protocol: 'tcp' | 'udp';
}

/** The ports that these settings lead to: those of parts that somebody else runs are left out. */
export function ownPorts(settings: StartSettings): readonly OwnPort[] {
  const isOwn = (name: PortName) =>
    name === 'POSTGRES_PORT'
      ? settings.DATABASE_URL === undefined
      : name === 'ISSUER_PORT'
        ? settings.OIDC_ISSUER === undefined
        : !/^(?:GATE|LIVEKIT)/.test(name) || settings.LIVEKIT_URL === undefined;
  const names = Object.keys(Ports.shape) as PortName[];
  return names.filter(isOwn).map((name) => ({
    name,
    number: settings[name],
    what: Ports.shape[name].description ?? name,
    protocol: name === 'LIVEKIT_UDP_PORT' ? 'udp' : 'tcp',
  }));
}

export function helpText(): string {
  const settings = Object.entries(Environment.shape).flatMap(([name, schema]) => {
    const fallback = schema.safeParse(undefined).data;
    if (!schema.description) return [];
    return [`  ${name.padEnd(18)}${schema.description}${fallback === undefined ? '' : ` [${fallback}]`}`];
  });
  return `Starts everything that a developer needs, in one terminal; Ctrl-C ends it.

Usage: npm start -- [--reset] [--help]

  --reset   first throws away what earlier starts kept: database, keys, logs

Settings, from the environment:
${settings.join('\n')}
All other settings of the services are passed on to them: see "npx node services/api/src/main.ts --help".
`;
}
