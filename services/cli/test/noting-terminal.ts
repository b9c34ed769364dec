import type { Terminal } from '../src/command.ts';

/** A terminal at which nobody sits, and what was said there. */
export const notingTerminal = (): { terminal: Terminal; told: { out: string; err: string } } => {
  const told = { out: '', err: '' };
  const terminal: Terminal = {
    write: (text) => {
      told.out += text;
    },
    tell: (text) => {
      told.err += text;
    },
    isInteractive: false,
    ask: () => Promise.reject(new Error('nobody is there')),
  };
  return { terminal, told };
};
