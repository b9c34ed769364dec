/** `npm start`: everything that a developer needs, in one terminal, until Ctrl-C. */
import { parseArgs } from 'node:util';
import { bringUp } from './bring-up.ts';
import { helpText, ownPorts, readStartSettings, type StartSettings } from './config.ts';
import { PartAbsent } from './part.ts';
import { reservePorts } from './ports.ts';
import { forgetKept, takeRunLock } from './run-lock.ts';
import { createStack, forever, logTail, type NamedPart } from './stack.ts';
import { StartFailure } from './start-failure.ts';
import { refuseUsedPorts } from './used-ports.ts';

const logTailLines = 15;

// Not by running out of things to do: a build that Ctrl-C interrupted would be waited for.
process.exit(await main());

async function main(): Promise<number> {
  try {
    const { help, reset } = readArguments();
    if (help) {
      say(helpText());
      return 0;
    }
    const settings = readStartSettings(process.env);
    const lock = await takeRunLock(settings.DATA_DIR);
    try {
      const ports = ownPorts(settings);
      await refuseUsedPorts(ports, lock.isAfterCrash);
      reservePorts(ports.map((port) => port.number));
      if (reset) await forgetKept(settings.DATA_DIR);
      return await run(settings);
    } finally {
      await lock.release();
    }
  } catch (error) {
    complain(tell(error));
    return 1;
  }
}

function readArguments() {
  try {
    const options = { help: { type: 'boolean' }, reset: { type: 'boolean' } } as const;
    return parseArgs({ options }).values;
  } catch (cause) {
    throw new StartFailure('There are two arguments, --reset and --help.', { cause });
  }
}

/** Until the first of three: Ctrl-C, a failure while starting, the end of a part. */
async function run(settings: StartSettings): Promise<number> {
  const stack = createStack(say);
  const { interrupted, insisted } = listenForInterrupts();
  const failure = await Promise.race([
    interrupted,
    bringUp(settings, stack, say).then(forever, tell),
    stack.firstToEnd().then(tellEnd),
  ]);
  if (failure === undefined) say('\nStopping. Ctrl-C again forces it.');
  else complain(failure);
  await Promise.race([stack.stop(), insisted.then(() => stack.kill())]);
  return failure === undefined ? 0 : 1;
}

/**
 * The second one counts as insisting only when both are Ctrl-C: npm and what stands between turn one signal into
 * several.
 */
function listenForInterrupts() {
  const interrupted = Promise.withResolvers<undefined>();
  const insisted = Promise.withResolvers<void>();
  let count = 0;
  process.on('SIGTERM', () => interrupted.resolve(undefined));
  process.on('SIGHUP', () => interrupted.resolve(undefined));
  process.on('SIGINT', () => {
    count += 1;
    if (count > 1) insisted.resolve();
    interrupted.resolve(undefined);
  });
  return { interrupted: interrupted.promise, insisted: insisted.promise };
}

async function tellEnd({ name, logFile }: NamedPart): Promise<string> {
  const end = `${name} has ended by itself, so everything ends.`;
  return logFile === undefined ? end : `${end} The last lines of its log:\n${await logTail(logFile, logTailLines)}`;
}

/** What is foreseen is told in its own words, anything else with where it came from. */
function tell(error: unknown): string {
  if (error instanceof StartFailure || error instanceof PartAbsent) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function complain(text: string): void {
  process.stderr.write(`\n${text}\n`);
}
