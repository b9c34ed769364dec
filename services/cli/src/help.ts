import { settingsOf } from '@realtime-service/telemetry';
import { type Command, exitCodes } from './command.ts';
import { CliSettings } from './config.ts';

const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}\n`).join('');
};

const settingsHelp = (): string =>
  columns(
    settingsOf(CliSettings)
      .filter(({ description }) => description !== '')
      .map(({ name, description, fallback }) => [name, `${description} [${fallback}]`]),
  );

export const usageOf = ({ name, positionals }: Command): string =>
  ['realtime', name, positionals, '[options]'].filter((part) => part !== '').join(' ');

export const optionsOf = ({ options }: Command): [string, string][] => [
  ...Object.entries(options).map(([name, { description, placeholder }]): [string, string] => [
    placeholder === undefined ? `--${name}` : `--${name} <${placeholder}>`,
    description,
  ]),
  ['--help', 'Tell this and end'],
];

const exits = (): [string, string][] => Object.values(exitCodes).map(({ code, meaning }) => [String(code), meaning]);

export const commandHelp = (command: Command): string =>
  [
    `${command.summary}\n\nUsage: ${usageOf(command)}\n`,
    `Options:\n${columns(optionsOf(command))}`,
    ...(command.details === undefined ? [] : [`${command.details}\n`]),
    `Examples:\n${command.examples.map((example) => `  realtime ${example}\n`).join('')}`,
    `Exit codes:\n${columns(exits())}`,
  ].join('\n');

/** `prefix` is what was given of a command's name: nothing, or a group such as `dead-letters`. */
export const overviewHelp = (commands: readonly Command[], prefix: string): string =>
  [
    `Usage: realtime ${prefix === '' ? '' : `${prefix} `}<command> [options]\n`,
    `Commands:\n${columns(commands.map(({ name, summary }) => [name, summary]))}`,
    'Each has its own --help.\n',
    `Settings, from the environment:\n${settingsHelp()}`,
  ].join('\n');
