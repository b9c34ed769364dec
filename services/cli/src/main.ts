#!/usr/bin/env node
import { createInterface } from 'node:readline/promises';
import { readSettings } from '@realtime-service/telemetry';
import type { Terminal } from './command.ts';
import { commands } from './commands.ts';
import { CliSettings } from './config.ts';
import { listDeadLetters, showDeadLetter } from './dead-letters.ts';
import { runCli } from './run-cli.ts';

const { stdin, stdout, stderr } = process;
// pnpm hands on the `--` that npm takes for itself.
const args = process.argv.slice(process.argv[2] === '--' ? 3 : 2);

const terminal: Terminal = {
  write: (text) => void stdout.write(text),
  tell: (text) => void stderr.write(text),
  isInteractive: stdin.isTTY && stderr.isTTY,
  ask: async (question) => {
    const lines = createInterface({ input: stdin, output: stderr });
    try {
      return await lines.question(question, { signal: ending.signal });
    } finally {
      lines.close();
    }
  },
};

// A reader that has seen enough (`| head`) is no failure where nothing was to be done or judged.
const reading: readonly string[] = [listDeadLetters.name, showDeadLetter.name];
const isReading = reading.includes(args.slice(0, 2).join(' '));
stdout.on('error', ({ code, message }: NodeJS.ErrnoException) => {
  if (code !== 'EPIPE') stderr.write(`Failed: ${message}\n`);
  process.exit(isReading && code === 'EPIPE' ? 0 : 1);
});

// What is only for people ends nothing where nobody reads it any more, or a full disk does not take it.
stderr.on('error', () => undefined);

const ending = new AbortController();
process.once('SIGINT', () => ending.abort());
process.once('SIGTERM', () => ending.abort());

process.exitCode = await runCli(commands, args, {
  terminal,
  ending: ending.signal,
  readSettings: () => readSettings('realtime', "Operators' commands.", CliSettings),
});
