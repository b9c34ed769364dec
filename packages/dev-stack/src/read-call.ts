/**
 * How a script was called. Ends the process with how it is to be called: with 0 where that was asked for, with 2 where
 * `read` refuses what was said.
 */
export const readCall = <Call>(usage: string, read: (args: string[]) => Call): Call => {
  // pnpm hands on the `--` that npm takes for itself.
  const args = process.argv.slice(process.argv[2] === '--' ? 3 : 2);
  if (args.includes('--help')) {
    process.stdout.write(`${usage}\n`);
    process.exit(0);
  }
  try {
    return read(args);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}\n`);
    process.exit(2);
  }
};

/** Ends a script whose reader has seen enough (`| head`), without a stack; nobody was told that all holds. */
export const endWithReader = (): void => {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(1);
  });
};
