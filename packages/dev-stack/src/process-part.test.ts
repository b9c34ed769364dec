import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import type { Part } from './part.ts';
import { type ProcessSpec, runCommand, runDirectory, startProcess } from './process-part.ts';
import { hasEnded } from './signals.ts';

/** A Node process that runs `script` and is ready once it has printed "ready". */
function nodeProcess(script: string): ProcessSpec {
  const logFile = join(runDirectory('process-test'), 'node.log');
  return {
    name: 'the test process',
    command: process.execPath,
    args: ['-e', script],
    logFile,
    isReady: async () => (await readFile(logFile, 'utf8')).includes('ready'),
    startTimeoutMs: 10_000,
    stopTimeoutMs: 500,
  };
}

const idle = `console.log('ready', process.pid); setInterval(() => undefined, 1000);`;

async function pidOf(part: Part): Promise<number> {
  return Number(/ready (\d+)/.exec(await readFile(part.logFile, 'utf8'))?.[1]);
}

describe('a process as a part', () => {
  let part: Part | undefined;
  afterEach(() => part?.kill());

  test('comes back after it was stopped or killed, as another process', async () => {
    part = await startProcess(nodeProcess(idle));
    const pids = [await pidOf(part)];
    await part.stop();
    await part.start();
    pids.push(await pidOf(part));
    await part.kill();
    await part.start();
    pids.push(await pidOf(part));
    expect(new Set(pids).size).toBe(3);
    expect(pids.map(hasEnded)).toEqual([true, true, false]);
  });

  test('may be started when it runs and stopped when it does not', async () => {
    part = await startProcess(nodeProcess(idle));
    const pid = await pidOf(part);
    await part.start();
    expect(await pidOf(part)).toBe(pid);
    await part.stop();
    await part.stop();
  });

  test('is killed when it does not heed the request to stop', async () => {
    part = await startProcess(nodeProcess(`process.on('SIGTERM', () => undefined); ${idle}`));
    const pid = await pidOf(part);
    await part.stop();
    expect(hasEnded(pid)).toBe(true);
  });

  test('can be stopped while it is paused', async () => {
    part = await startProcess(
      nodeProcess(`process.on('SIGTERM', () => { console.log('bye'); process.exit(); }); ${idle}`),
    );
    await part.pause();
    await part.stop();
    expect(await readFile(part.logFile, 'utf8')).toContain('bye');
  });

  test('takes its children along when it is killed', async () => {
    const parent = `
      const child = require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(idle)}], { detached: true });
      child.stdout.pipe(process.stdout);`;
    part = await startProcess(nodeProcess(parent));
    const child = await pidOf(part);
    await part.kill();
    expect(hasEnded(child)).toBe(true);
  });

  test('whose start fails leaves the end of its log in the message', async () => {
    const failing = nodeProcess(`console.error('no such setting'); process.exit(3);`);
    await expect(startProcess(failing)).rejects.toThrow(
      /the test process ended with 3 while starting.*no such setting/s,
    );
  });

  test('that is not ready in time is ended', async () => {
    const slow = {
      ...nodeProcess(`console.log('pid', process.pid); setInterval(() => undefined, 1000);`),
      startTimeoutMs: 300,
    };
    await expect(startProcess(slow)).rejects.toThrow('was not ready after 300 ms');
    const pid = Number(/pid (\d+)/.exec(await readFile(slow.logFile, 'utf8'))?.[1]);
    expect(hasEnded(pid)).toBe(true);
  });

  test('that does not exist is named', async () => {
    const missing = { ...nodeProcess(''), command: '/no/such/program' };
    await expect(startProcess(missing)).rejects.toThrow('the test process could not be started');
  });
});

describe('when the process that started them dies', () => {
  test.each(['SIGKILL', 'SIGTERM'] as const)('by %s, parts end and run directories go', async (signal) => {
    const folder = runDirectory('reaper-test');
    const script = join(folder, 'parent.ts');
    const logFile = join(folder, 'child.log');
    await writeFile(
      script,
      `import { startProcess, runDirectory } from ${JSON.stringify(new URL('./process-part.ts', import.meta.url).href)};
       import { readFile } from 'node:fs/promises';
       const logFile = ${JSON.stringify(logFile)};
       await startProcess({ name: 'child', command: process.execPath, args: ['-e', ${JSON.stringify(idle)}], logFile,
         isReady: async () => (await readFile(logFile, 'utf8')).includes('ready'), startTimeoutMs: 10_000 });
       console.log(runDirectory('of-the-parent'));
       setInterval(() => undefined, 1000);`,
    );
    const parent = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(parent.stdout, 'data');
    const directory = dirname(String(line).trim());
    const child = Number(/ready (\d+)/.exec(await readFile(logFile, 'utf8'))?.[1]);
    expect([hasEnded(child), existsSync(directory)]).toEqual([false, true]);

    parent.kill(signal);
    await expect.poll(() => [hasEnded(child), existsSync(directory)], { timeout: 10_000 }).toEqual([true, false]);
  });
});

describe('a command', () => {
  test('returns what it printed', async () => {
    expect(await runCommand({ command: process.execPath, args: ['-p', '6 * 7'] })).toBe('42\n');
  });

  test('that fails throws what it said', async () => {
    const script = `console.error('bad luck'); process.exit(1)`;
    await expect(runCommand({ command: process.execPath, args: ['-e', script] })).rejects.toThrow(
      /ended with 1:\nbad luck/,
    );
  });
});
