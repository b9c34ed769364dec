import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';

const logger = new URL('./logger.ts', import.meta.url);
const runService = new URL('./run-service.ts', import.meta.url);

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly lines: Record<string, unknown>[];
}

/** Runs `start`, the text of an async function, as a service; sends `signals` when it writes `now`. */
const run = async (start: string, signals: readonly NodeJS.Signals[] = [], shutdownMs = 5_000): Promise<Ended> => {
  const program = `
    import { createLogger } from '${logger}';
    import { runService } from '${runService}';
    const logger = createLogger({ service: 'test', level: 'info' });
    const now = () => logger.warn('now');
    const nextSignal = () => new Promise((resolve) => ['SIGTERM', 'SIGINT'].map((name) => process.once(name, resolve)));
    const forever = setInterval(() => {}, 1_000);
    await runService(${start}, { logger, shutdownMs: ${shutdownMs} });`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  let isTold = false;
  child.stdout.on('data', (text) => {
    output += text;
    if (isTold || !output.includes('"now"')) return;
    isTold = true;
    for (const signal of signals) child.kill(signal);
  });
  const [code, signal] = await once(child, 'close');
  const lines = output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  return { code, signal, lines };
};

const said = ({ lines }: Ended): unknown[] => lines.map(({ msg }) => msg).filter((msg) => msg !== 'now');

describe('a service', () => {
  test.each(['SIGTERM', 'SIGINT'] as const)('that is told by %s ends in order', async (signal) => {
    const ended = await run(`async () => { setTimeout(now); return { stop: async () => logger.info('stopped') }; }`, [
      signal,
    ]);
    expect(ended).toMatchObject({ code: 0, signal: null });
    expect(said(ended)).toEqual(['stopping', 'stopped']);
    expect(ended.lines).toContainEqual(expect.objectContaining({ msg: 'stopping', reason: signal }));
  });

  test('sends the spans that wait once it has stopped', async () => {
    const api = import.meta.resolve('@opentelemetry/api');
    const start = `async () => {
      const { trace } = await import('${api}');
      trace.setGlobalTracerProvider({ getTracer: () => {}, shutdown: async () => logger.info('sent') });
      setTimeout(now);
      return { stop: async () => logger.info('stopped') };
    }`;
    const ended = await run(start, ['SIGTERM']);
    expect(ended).toMatchObject({ code: 0, signal: null });
    expect(said(ended)).toEqual(['stopping', 'stopped', 'sent']);
  });

  test('that is told twice stops once', async () => {
    const stop = `async () => { logger.info('stopped'); await nextSignal(); }`;
    const ended = await run(`async () => { setTimeout(now); return { stop: ${stop} }; }`, ['SIGTERM', 'SIGINT']);
    expect(ended).toMatchObject({ code: 0, signal: null });
    expect(said(ended)).toEqual(['stopping', 'stopped']);
  });

  test('that is told while it starts ends in order once it has', async () => {
    const start = `async () => {
      now();
      await nextSignal();
      logger.info('started');
      return { stop: async () => logger.info('stopped') };
    }`;
    const ended = await run(start, ['SIGTERM']);
    expect(ended).toMatchObject({ code: 0, signal: null });
    expect(said(ended)).toEqual(['stopping', 'started', 'stopped']);
  });

  test('whose start heeds the signal ends at once', async () => {
    const start = `(ending) => new Promise((_, reject) => {
      ending.addEventListener('abort', () => reject(new Error('given up')));
      now();
    })`;
    const ended = await run(start, ['SIGTERM']);
    expect(ended).toMatchObject({ code: 0, signal: null });
    expect(said(ended)).toEqual(['stopping']);
  });

  test('that cannot start says why', async () => {
    const ended = await run(`async () => { throw new Error('the port is taken'); }`);
    expect(ended).toMatchObject({ code: 1, signal: null });
    expect(said(ended)).toEqual(['cannot go on', 'stopping']);
    expect(ended.lines[0]).toMatchObject({ level: 'fatal', err: { message: 'the port is taken' } });
  });

  test('that fails by itself is stopped, and ends with 1', async () => {
    const ended = await run(
      `async () => ({ failed: Promise.reject(new Error('no partitions')), stop: async () => logger.info('stopped') })`,
    );
    expect(ended).toMatchObject({ code: 1, signal: null });
    expect(said(ended)).toEqual(['cannot go on', 'stopping', 'stopped']);
  });

  test.each([
    ['throws where nobody catches', `setTimeout(() => { throw new Error('a defect'); })`],
    ['has a rejection that nobody handles', `Promise.reject(new Error('a defect'))`],
    ['does so while it ends', `process.on('SIGTERM', () => Promise.reject(new Error('a defect')))`],
  ])('that %s says so in its last line, and ends with 1', async (_, defect) => {
    const start = `async () => { ${defect}; setTimeout(now); return { stop: () => new Promise(() => {}) }; }`;
    const ended = await run(start, ['SIGTERM']);
    expect(ended).toMatchObject({ code: 1, signal: null });
    expect(ended.lines.at(-1)).toEqual(
      expect.objectContaining({
        level: 'fatal',
        msg: 'cannot go on',
        err: expect.objectContaining({ message: 'a defect', stack: expect.stringContaining('Error: a defect') }),
      }),
    );
  });

  test.each([
    ['does not stop in time', '() => new Promise(() => {})', 'did not stop in time'],
    ['fails to stop', `async () => { throw new Error('stuck'); }`, 'did not stop in order'],
  ])('that %s ends with 1', async (_, stop, message) => {
    const ended = await run(`async () => { setTimeout(now); return { stop: ${stop} }; }`, ['SIGTERM'], 200);
    expect(ended).toMatchObject({ code: 1, signal: null });
    expect(said(ended)).toEqual(['stopping', message]);
  });
});
