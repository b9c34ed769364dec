import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { context, ROOT_CONTEXT, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { readTelemetryConfig } from './config.ts';
import { createLogger } from './logger.ts';

const jwt = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTcifQ.c2lnbmF0dXJl';
const span = { traceId: '4bf92f3577b34da6a3ce929d0e0e4736', spanId: '00f067aa0ba902b7', traceFlags: 1 };

beforeAll(() => context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable()));
afterAll(() => context.disable());

function given(level?: string) {
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    service: 'api',
    ...(level !== undefined && { level }),
    destination: { write: (line) => lines.push(JSON.parse(line)) },
  });
  return { logger, lines };
}

/** A process that does this with a logger. */
function run(script: string, stdout: 'pipe' | number = 'pipe') {
  const logger = JSON.stringify(import.meta.resolve('./logger.ts'));
  const program = `const { createLogger } = await import(${logger}); const logger = createLogger(); ${script}`;
  const args = ['--input-type=module', '--eval', program];
  return spawnSync(process.execPath, args, { encoding: 'utf8', stdio: ['ignore', stdout, 'pipe'] });
}

/** The messages on its standard output. */
function saidBy(script: string): string[] {
  return run(script)
    .stdout.split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line).msg);
}

describe('createLogger', () => {
  it.each([
    ['ends by itself', `logger.info('last')`],
    ['is ended', `logger.info('last'); process.exit()`],
    ['fails', `logger.info('last'); throw new Error()`],
    ['says why it cannot go on, and is killed', `logger.fatal('last'); process.kill(process.pid, 'SIGKILL')`],
    ['is killed later', `logger.info('last'); setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1_000)`],
  ])('when a process %s, then its last line is there', (_, script) => {
    expect(saidBy(script)).toEqual(['last']);
  });

  describe.runIf(existsSync('/dev/full'))('when the disk is full', () => {
    const full = openSync('/dev/full', 'w');
    const fill = `for (let at = 0; at < 100_000; at += 1) logger.info('x'.repeat(1_000));`;

    it('then the process goes on, with bounded memory', () => {
      const { status, stderr } = run(`${fill} logger.fatal('last'); console.error(process.memoryUsage().rss);`, full);
      expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringMatching(/^\d+\n$/) });
      expect(Number(stderr)).toBeLessThan(200_000_000);
    });

    it('and has room again, then whole lines are written again', () => {
      const path = join(mkdtempSync(join(tmpdir(), 'log-')), 'log');
      const makeRoom = `const { closeSync, openSync } = await import('node:fs'); closeSync(1); openSync(${JSON.stringify(path)}, 'w');`;
      run(`${fill} ${makeRoom} for (const at of ['1', '2']) logger.fatal(at.repeat(10_000));`, full);
      const said = readFileSync(path, 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line).msg);
      expect(said.at(-1)).toBe('2'.repeat(10_000));
    });
  });

  it('when there are many lines, then all are there, in order', () => {
    const said = saidBy(`for (let at = 0; at < 1_000; at += 1) logger.info(String(at))`);
    expect(said).toEqual(Array.from({ length: 1_000 }, (_line, at) => String(at)));
  });

  it('when a line is written, then it has level, time, service and fields', () => {
    const { logger, lines } = given();
    logger.info({ room: 'room-42' }, 'joined');
    expect(lines).toEqual([
      {
        level: 'info',
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
        service: 'api',
        room: 'room-42',
        msg: 'joined',
      },
    ]);
  });

  it('when time goes on, or back, then each line tells its own', () => {
    vi.useFakeTimers();
    const { logger, lines } = given();
    const times = [
      '2026-12-31T23:59:59.007Z',
      '2026-12-31T23:59:59.998Z',
      '2027-01-01T00:00:00.000Z',
      '2026-12-31T23:59:59.999Z',
    ];
    for (const time of times) {
      vi.setSystemTime(time);
      logger.info('joined');
    }
    vi.useRealTimers();
    expect(lines.map(({ time }) => time)).toEqual(times);
  });

  it('when no service is named, then lines carry the name that its traces have', () => {
    const lines: Record<string, unknown>[] = [];
    createLogger({ destination: { write: (line) => lines.push(JSON.parse(line)) } }).info('joined');
    expect(lines).toMatchObject([{ service: readTelemetryConfig().serviceName }]);
  });

  it('when the level is higher, then lower lines are not written', () => {
    const { logger, lines } = given('warn');
    logger.info('joined');
    expect(lines).toEqual([]);
  });

  it('when a span is active, then the line names it', () => {
    const { logger, lines } = given();
    context.with(trace.setSpanContext(ROOT_CONTEXT, span), () => logger.info('joined'));
    logger.info('outside');
    expect(lines).toMatchObject([{ trace_id: span.traceId, span_id: span.spanId }, {}]);
    expect(lines[1]).not.toHaveProperty('trace_id');
  });

  it('when a child carries secrets, then its lines do not', () => {
    const { logger, lines } = given();
    logger
      .child({ headers: { authorization: 'Bearer abc' } })
      .info({ nested: { participant_token: jwt, ok: true } }, 'asked');
    expect(lines).toMatchObject([
      { headers: { authorization: '[redacted]' }, nested: { participant_token: '[redacted]', ok: true } },
    ]);
  });

  it('when no address of a name answers, then what each of them said is told', () => {
    const { logger, lines } = given();
    const errors = ['connect ECONNREFUSED 127.0.0.1:1', 'connect ECONNREFUSED ::1:1'].map((text) => new Error(text));
    logger.warn({ err: new Error('LiveKit did not answer', { cause: new AggregateError(errors) }) }, 'sweep failed');
    const message = 'connect ECONNREFUSED 127.0.0.1:1; connect ECONNREFUSED ::1:1';
    expect(lines).toMatchObject([{ err: { cause: { type: 'AggregateError', message } } }]);
  });

  it('when an error quotes a token, then message, stack and causes are scrubbed', () => {
    const { logger, lines } = given();
    logger.error({ err: new Error(`refused ${jwt}`, { cause: new TypeError(`because of ${jwt}`) }) }, 'removal failed');
    expect(lines).toMatchObject([
      {
        err: {
          type: 'Error',
          message: 'refused [jwt]',
          stack: expect.stringContaining('Error: refused [jwt]\n'),
          cause: { type: 'TypeError', message: 'because of [jwt]' },
        },
      },
    ]);
  });

  it('when a client hangs its request on an error, then it is left out', () => {
    const { logger, lines } = given();
    const error = Object.assign(new Error('no'), {
      code: 'ECONNREFUSED',
      config: { data: 'private' },
      detail: 'Key (email)=(ann)',
    });
    logger.error({ err: error }, 'request failed');
    expect(lines).toMatchObject([{ err: { code: 'ECONNREFUSED' } }]);
    expect(JSON.stringify(lines)).not.toMatch(/private|ann/);
  });

  it.each([
    ['refused', { type: 'string', message: 'refused' }],
    [{ secret: 's3cret' }, { type: 'object', message: '[object Object]' }],
  ])('when %o is thrown instead of an error, then the line still says so', (thrown, err) => {
    const { logger, lines } = given();
    logger.error({ err: thrown }, 'failed');
    expect(lines).toMatchObject([{ err }]);
  });

  it('when a request is logged, then without its query', () => {
    const { logger, lines } = given();
    logger.info({ req: { method: 'GET', url: '/gate?access_token=abc', ip: '10.0.0.1' } }, 'asked');
    expect(lines).toMatchObject([{ req: { method: 'GET', path: '/gate', address: '10.0.0.1' } }]);
  });
});
