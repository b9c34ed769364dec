/** How a part runs, and what happens when it cannot be had on this machine. */

/** Something that was started and can be taken down and brought back, each time with the same address and data. */
export interface Part {
  /** Brings it back after `stop` or `kill`; resolves when it serves. */
  start(): Promise<void>;
  /** Ends it in order. Does nothing when it is down. */
  stop(): Promise<void>;
  /** Ends it as a crash would: SIGKILL, nothing is flushed, nobody is told. */
  kill(): Promise<void>;
  /** Freezes it: connections stay open, nothing answers. Not on Windows. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Takes what it prints, from its last start on. */
  readonly logFile: string;
}

/** Told what is going on whenever something takes longer than a moment. */
export type Report = (line: string) => void;

export const silently: Report = () => undefined;

/** A part that this machine cannot run: what is missing, and what does not work without it, in plain sentences. */
export class PartAbsent extends Error {
  readonly part: string;
  readonly missing: string;
  readonly consequence: string;

  constructor(absence: Pick<PartAbsent, 'part' | 'missing' | 'consequence'>, options?: ErrorOptions) {
    super(`${absence.part} is absent: ${absence.missing} ${absence.consequence}`, options);
    this.name = 'PartAbsent';
    this.part = absence.part;
    this.missing = absence.missing;
    this.consequence = absence.consequence;
  }
}
