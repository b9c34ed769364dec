import { copyFile, cp, mkdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cached } from './cache.ts';
import { findJava, unpackArtifact } from './maven.ts';
import { type Part, type Report, silently } from './part.ts';
import { freePort } from './ports.ts';
import { type ProcessSpec, runCommand, runDirectory, startProcess } from './process-part.ts';

const keycloakVersion = '26.7.3';
const developmentRealm = fileURLToPath(new URL('../../../deploy/keycloak/realm-dev.json', import.meta.url));
const administrator = { username: 'admin', password: 'admin' };

export interface KeycloakOptions {
  /** A realm in Keycloak's export format; the development realm by default. */
  readonly realmFile?: string;
  readonly port?: number;
  readonly report?: Report;
}

export interface Keycloak extends Part {
  /** `http://127.0.0.1:<port>`: the admin console, and what `keycloakAdmin` wants. */
  readonly url: string;
  readonly port: number;
  /** The realm's, as it stands in `iss`. */
  readonly issuer: string;
  /** An access token of the realm. */
  token(request: TokenRequest): Promise<string>;
}

/** A user's password (resource owner password credentials), or without one the client's own credentials. */
export interface TokenRequest {
  readonly clientId: string;
  readonly clientSecret?: string;
  readonly username?: string;
  readonly password?: string;
  readonly scope?: string;
}

/** A Keycloak on 127.0.0.1 with its own database and one imported realm. */
export async function startKeycloak(options: KeycloakOptions = {}): Promise<Keycloak> {
  const report = options.report ?? silently;
  const { java, home: installed } = await keycloakProgram(report);
  const realmFile = options.realmFile ?? developmentRealm;
  const realm: unknown = JSON.parse(await readFile(realmFile, 'utf8')).realm;
  if (typeof realm !== 'string') throw new Error(`${realmFile} is no realm`);
  const port = options.port ?? (await freePort());

  const run = runDirectory('keycloak');
  const home = await privateHome(installed, join(run, 'home'));
  await mkdir(join(home, 'data', 'import'), { recursive: true });
  await copyFile(realmFile, join(home, 'data', 'import', `${realm}.json`));

  const part = await startProcess(await server({ java, home, port, logFile: join(run, 'keycloak.log') }));
  const url = `http://127.0.0.1:${port}`;
  const issuer = `${url}/realms/${realm}`;
  return { ...part, url, port, issuer, token: (request) => keycloakToken(issuer, request) };
}

/** An access token from Keycloak's token endpoint. Throws with Keycloak's answer when it refuses. */
export async function keycloakToken(issuer: string, request: TokenRequest): Promise<string> {
  const form = new URLSearchParams({
    client_id: request.clientId,
    grant_type: request.username === undefined ? 'client_credentials' : 'password',
  });
  const optional = {
    client_secret: request.clientSecret,
    username: request.username,
    password: request.password,
    scope: request.scope,
  };
  for (const [name, value] of Object.entries(optional)) if (value !== undefined) form.set(name, value);

  const response = await fetch(`${issuer}/protocol/openid-connect/token`, { method: 'POST', body: form });
  const answer = await response.text();
  if (!response.ok) throw new Error(`no token for ${request.clientId}: ${response.status} ${answer}`);
  return JSON.parse(answer).access_token;
}

/** Calls the admin API as administrator: `keycloakAdmin(url, '/realms/dev/users?username=ann')`. */
export async function keycloakAdmin(url: string, path: string, init: RequestInit = {}): Promise<Response> {
  const token = await keycloakToken(`${url}/realms/master`, { clientId: 'admin-cli', ...administrator });
  const headers = new Headers(init.headers);
  headers.set('authorization', `Bearer ${token}`);
  if (init.body !== undefined && !headers.has('content-type')) headers.set('content-type', 'application/json');
  return fetch(`${url}/admin${path}`, { ...init, headers });
}

async function keycloakProgram(report: Report): Promise<{ java: string; home: string }> {
  const java = await findJava('Keycloak', 'What needs a real Keycloak is left out.');
  const home = await cached(`keycloak-${keycloakVersion}`, report, async (unfinished) => {
    report(`fetching and building Keycloak ${keycloakVersion} (177 MB), about a minute, once …`);
    await unpackArtifact(`org.keycloak:keycloak-quarkus-dist:${keycloakVersion}:zip`, unfinished);
    const unpacked = join(unfinished, `keycloak-${keycloakVersion}`);
    const build = ['build', '--db=dev-file', '--health-enabled=true'];
    await runCommand({ command: java, args: keycloakArguments(unpacked, build) });
    // With the schema and the master realm in place every later start saves ten seconds.
    const port = await freePort();
    const primed = await startProcess(
      await server({ java, home: unpacked, port, logFile: join(unfinished, 'prime.log') }),
    );
    await primed.stop();
  });
  return { java, home: join(home, `keycloak-${keycloakVersion}`) };
}

/** A home that shares the installation's programs and has its own copy of the primed database. */
async function privateHome(installed: string, home: string): Promise<string> {
  await mkdir(home);
  for (const shared of ['lib', 'conf', 'providers', 'themes']) {
    await symlink(join(installed, shared), join(home, shared), 'junction');
  }
  await copyFile(join(installed, 'version.txt'), join(home, 'version.txt'));
  await cp(join(installed, 'data'), join(home, 'data'), { recursive: true });
  return home;
}

async function server(options: {
  readonly java: string;
  readonly home: string;
  readonly port: number;
  readonly logFile: string;
}): Promise<ProcessSpec> {
  const managementPort = await freePort();
  return {
    name: `Keycloak ${keycloakVersion}`,
    command: options.java,
    args: keycloakArguments(options.home, [
      ...['start', '--optimized', '--import-realm', '--cache=local'],
      ...['--http-enabled=true', '--http-host=127.0.0.1', `--http-port=${options.port}`],
      `--hostname=http://127.0.0.1:${options.port}`,
      // Says at each of our questions that it is not ready yet.
      '--log-level=info,io.smallrye.health:error',
      ...['--http-management-host=127.0.0.1', `--http-management-port=${managementPort}`],
    ]),
    env: {
      KC_BOOTSTRAP_ADMIN_USERNAME: administrator.username,
      KC_BOOTSTRAP_ADMIN_PASSWORD: administrator.password,
    },
    logFile: options.logFile,
    isReady: async () => (await fetch(`http://127.0.0.1:${managementPort}/health/ready`)).ok,
    startTimeoutMs: 120_000,
  };
}

/** What `kc.sh` makes of the same arguments, without a shell between us and the process. */
function keycloakArguments(home: string, args: readonly string[]): string[] {
  return [
    ...['-Xms64m', '-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1'],
    '--add-opens=java.base/java.util=ALL-UNNAMED',
    '--add-opens=java.base/java.util.concurrent=ALL-UNNAMED',
    '--add-opens=java.base/java.security=ALL-UNNAMED',
    '--add-opens=java.base/java.lang=ALL-UNNAMED',
    '-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory',
    '-Djava.util.logging.manager=org.jboss.logmanager.LogManager',
    '-Dpicocli.disable.closures=true',
    `-Dkc.home.dir=${home}`,
    `-Djboss.server.config.dir=${join(home, 'conf')}`,
    ...['-cp', join(home, 'lib', 'quarkus-run.jar'), 'io.quarkus.bootstrap.runner.QuarkusEntryPoint'],
    ...args,
  ];
}
