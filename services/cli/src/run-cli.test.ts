import { spawnSync } from 'node:child_process';
import { existsSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { topics } from '@realtime-service/contracts';
import { describe, expect, test } from 'vitest';
import { notingTerminal } from '../test/noting-terminal.ts';
import { type Command, CommandError, defineCommand, UsageError } from './command.ts';
import { commands } from './commands.ts';
import { CliSettings } from './config.ts';
import { runCli } from './run-cli.ts';

const run = async (args: readonly string[], known: readonly Command[] = commands) => {
  const { terminal, told } = notingTerminal();
  const readSettings = () => {
    throw new Error('no settings were needed');
  };
  const code = await runCli(known, args, { terminal, ending: new AbortController().signal, readSettings });
  return { code, ...told };
};

describe('help', () => {
  test.each(commands.map(({ name }) => name))(
    '%s tells how it is called, its options, and what it answers',
    async (name) => {
      const { code, out, err } = await run([...name.split(' '), '--help']);
      expect({ code, err }).toEqual({ code: 0, err: '' });
      const command = commands.find((each) => each.name === name) as Command;
      expect(out).toContain(`Usage: realtime ${name}`);
      for (const option of [...Object.keys(command.options), 'help'])
        expect(out).toMatch(new RegExp(`^  --${option}\\b`, 'm'));
      for (const example of command.examples) expect(out).toContain(`realtime ${example}`);
      expect(out).toMatch(/^ {2}0 {2}done$/m);
    },
  );

  test('the overview names every command, and the settings', async () => {
    const { code, out } = await run(['--help']);
    expect(code).toBe(0);
    for (const { name } of commands) expect(out).toContain(`  ${name}`);
    for (const name of ['DATABASE_URL', 'KAFKA_BROKERS']) expect(out).toMatch(new RegExp(`^  ${name} `, 'm'));
  });

  test("a group's help names its commands only", async () => {
    const { code, out } = await run(['dead-letters', '--help']);
    expect(code).toBe(0);
    expect(out).toContain('dead-letters retry');
    expect(out).not.toContain('  rebuild');
  });
});

describe('what is called in a wrong way', () => {
  test.each<[args: string[], message: string]>([
    [['nothing'], 'There is no command nothing.'],
    [['dead-letters'], 'dead-letters needs a command.'],
    [['--json', 'verify'], '--json stands before any command.'],
    [['dead-letters', '--json', 'list'], 'dead-letters needs a command.'],
    [['dead-letters', 'burn'], 'There is no command dead-letters burn.'],
    [['dead-letters', 'list', '--quietly'], "Unknown option '--quietly'"],
    [['dead-letters', 'list', 'a/1/2'], "Unexpected argument 'a/1/2'"],
    [['dead-letters', 'list', '--limit', '0'], '--limit is a number from 1 to 1000'],
    [['dead-letters', 'list', '--limit', '1e2'], '--limit is a number from 1 to 1000'],
    [['dead-letters', 'list', '--after', '7'], 'A position is <topic>/<partition>/<offset>'],
    [['dead-letters', 'list', '--where', 'color=red'], "There is no field 'color'"],
    [['dead-letters', 'show'], 'Say one position'],
    [['dead-letters', 'show', 'a/1/2', 'a/1/3'], 'Say one position'],
    [['dead-letters', 'retry'], 'Say what to retry: positions, or --where'],
    [['dead-letters', 'retry', 'a/1/2', '--where', 'type=x'], 'Say what to retry: positions, or --where'],
    [['dead-letters', 'discard', '--where', 'status=discarded'], 'Letters that are discarded cannot be discarded'],
    [['dead-letters', 'retry', '--where', 'status=retried'], 'Letters that are retried cannot be retried'],
    [['rebuild', '--threads', '1e1'], '--threads is a number from 1 to 64'],
    [['rebuild', '--accept-misplaced', '--threads', '2'], '--accept-misplaced takes one thread'],
    [['dead-letters', 'retry', 'a/1/2', '--wait', '601'], '--wait is a number from 0 to 600'],
  ])('%j', async (args, message) => {
    const { code, out, err } = await run(args);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toContain(message);
    expect(err).toContain('--help');
  });

  test('nothing at all tells what there is', async () => {
    expect(await run([])).toMatchObject({ code: 2, out: expect.stringContaining('dead-letters list') });
  });
});

describe('how a command ends', () => {
  const failing = (error: unknown): Command[] => [
    defineCommand({
      name: 'fail',
      summary: 'Fails',
      positionals: '',
      options: {},
      examples: ['fail'],
      run: () => Promise.reject(error),
    }),
  ];

  test.each<[title: string, error: unknown, code: number, err: string]>([
    ['an expected failure, in a line', new CommandError('The topic was grown'), 1, 'The topic was grown\n'],
    ['a usage error', new UsageError('Say more'), 2, 'Say more\nSee realtime fail --help.\n'],
    [
      'whatever else, with its causes and without secrets',
      new Error('no answer', { cause: new Error('postgres://ann:hunter2@db/x is away') }),
      1,
      'Failed: no answer: postgres://[redacted]@db/x is away\n',
    ],
    [
      'what was waiting for an answer, or for another one, when it was interrupted',
      new DOMException('This operation was aborted', 'AbortError'),
      1,
      'Interrupted: nothing was done.\n',
    ],
    ['what is no error', 'thrown text', 1, 'Failed: thrown text\n'],
  ])('%s', async (_, error, code, err) => {
    expect(await run(['fail'], failing(error))).toEqual({ code, out: '', err });
  });

  test('what fails again and again is told once, whatever else fails in between', async () => {
    const patient = defineCommand({
      name: 'wait',
      summary: 'Waits for the log',
      positionals: '',
      options: {},
      examples: ['wait'],
      run: async (_, open) => {
        const { log, terminal } = open();
        await (await log(terminal.tell)).bounds(topics.roomEvents);
        return 'done';
      },
    });
    const { terminal, told } = notingTerminal();
    const settings = CliSettings.parse({ DATABASE_URL: 'postgres://127.0.0.1:1/none', KAFKA_BROKERS: '127.0.0.1:1' });
    await runCli([patient], ['wait'], {
      terminal,
      ending: new AbortController().signal,
      readSettings: () => settings,
    });
    const lines = told.err.trim().split('\n');
    expect(lines.length).toBeGreaterThan(2);
    expect(lines).toEqual([...new Set(lines)]);
  });
});

test.runIf(existsSync('/dev/full'))('a full disk behind standard error ends no command', () => {
  const main = fileURLToPath(import.meta.resolve('./main.ts'));
  const stdio = ['ignore', 'pipe', openSync('/dev/full', 'w')] as const;
  expect(spawnSync(process.execPath, [main, 'nothing'], { stdio: [...stdio] }).status).toBe(2);
});

test.runIf(existsSync('/dev/full'))('a full disk behind standard output ends a command, and is named', () => {
  const main = fileURLToPath(import.meta.resolve('./main.ts'));
  const stdio = ['ignore', openSync('/dev/full', 'w'), 'pipe'] as const;
  const { status, stderr } = spawnSync(process.execPath, [main, '--help'], { stdio: [...stdio], encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/^Failed: .*ENOSPC.*\n$/) });
});

test('the dashes that pnpm hands on say nothing', () => {
  const main = fileURLToPath(import.meta.resolve('./main.ts'));
  const { stdout } = spawnSync(process.execPath, [main, '--', 'rebuild', '--help'], { encoding: 'utf8' });
  expect(stdout).toContain('Usage: realtime rebuild');
});
