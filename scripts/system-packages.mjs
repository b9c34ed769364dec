// Installs what the tests take from the system's packages: nginx, HAProxy, PgBouncer, a Chromium or Chrome, a Java
// compiler and pip. Says how where it may not.
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

const needed = [
  { package: 'nginx', programs: ['nginx'] },
  { package: 'haproxy', programs: ['haproxy'] },
  { package: 'pgbouncer', programs: ['pgbouncer'] },
  { package: 'chromium', programs: ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'] },
  { package: 'default-jdk-headless', programs: ['javac'] },
  { package: 'python3-pip', programs: ['pip3'] },
];

const missing = needed.filter(({ programs }) => !programs.some(isOnPath)).map(({ package: name }) => name);
if (missing.length > 0) {
  const mayInstall = isOnPath('apt-get') && process.getuid?.() === 0;
  process.exitCode = mayInstall ? aptInstall(missing) : 1;
  if (process.exitCode !== 0) {
    console.error(
      `Missing: ${missing.join(', ')}. On Debian: sudo apt-get install --no-install-recommends ${missing.join(' ')}`,
    );
  }
}

function isOnPath(program) {
  return process.env.PATH.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function aptInstall(packages) {
  const options = { stdio: 'inherit', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };
  spawnSync('apt-get', ['update', '-q'], options);
  return spawnSync('apt-get', ['install', '-q', '-y', '--no-install-recommends', ...packages], options).status ?? 1;
}
