import { z } from 'zod';

interface Field {
  readonly name: string;
  readonly description: string;
  /** What it takes, where that is a choice or a range; else empty. */
  readonly values: string;
  readonly fallback: string;
}

/** What the walk over a settings schema needs of zod's inner definitions. */
type Schema = z.core.$ZodType;

const fallbackOf = (schema: Schema): string => {
  const { def } = schema._zod;
  if (def.type === 'default' || def.type === 'prefault') return String((def as z.core.$ZodDefaultDef).defaultValue);
  return def.type === 'optional' ? 'unset' : 'required';
};

const valuesOf = (schema: Schema): string => {
  const { type, enum: choices, minimum, maximum } = z.toJSONSchema(schema, { unrepresentable: 'any' });
  if (choices !== undefined) return choices.join(', ');
  if (type === 'boolean') return 'true, false';
  return minimum === undefined || maximum === undefined ? '' : `${minimum} to ${maximum}`;
};

const fieldsOf = (schema: Schema): Field[] => {
  const { def } = schema._zod;
  switch (def.type) {
    case 'intersection': {
      const { left, right } = def as z.core.$ZodIntersectionDef;
      return [...fieldsOf(left), ...fieldsOf(right)];
    }
    case 'pipe':
      return fieldsOf((def as z.core.$ZodPipeDef).in);
    case 'object':
      return Object.entries((def as z.core.$ZodObjectDef).shape).map(([name, field]) => ({
        name,
        description: z.globalRegistry.get(field)?.description ?? '',
        values: valuesOf(field),
        fallback: fallbackOf(field),
      }));
    default:
      return [];
  }
};

/**
 * The variables that a schema reads: objects, in whatever intersections and transforms they stand. One that several of
 * them read is named once, with what each says of it.
 */
export const settingsOf = (schema: Schema): Field[] => {
  const byName = new Map<string, Field>();
  for (const field of fieldsOf(schema)) {
    const known = byName.get(field.name);
    const description = known === undefined ? field.description : `${known.description}. ${field.description}`;
    byName.set(field.name, { ...field, description });
  }
  return [...byName.values()];
};

/** Each setting's name, and what `--help` tells of it. */
export const settingLines = (schema: Schema): [name: string, text: string][] =>
  settingsOf(schema).map(({ name, description, values, fallback }) => [
    name,
    `${description}${values === '' ? '' : ` (${values})`} [${fallback}]`,
  ]);

/** Two columns as a help text has them, each row a line. */
export const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}\n`).join('');
};

/** What a schema reads, for `--help`. */
export const settingsHelp = (schema: Schema): string =>
  `Settings, from the environment:\n${columns(settingLines(schema))}`;

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Values that stand in quotes, as `docker run --env-file` hands them on: a guard that asks for `production` would see
 * none.
 */
const quotedIn = (environment: Environment, schema: Schema): string[] =>
  settingsOf(schema)
    .map(({ name }) => name)
    .filter((name) => /^(["']).*\1$/s.test(environment[name] ?? ''));

/** What Kubernetes tells all pods of a Service named `api` is in `API_PORT`, too. */
const isServiceLink = (value: string | undefined): boolean => /^(?:tcp|udp|sctp):\/\//.test(value ?? '');

/** All faults of an environment, one a line; values are not quoted, as they may be secrets. */
const describeFaults = (error: z.ZodError | undefined, quoted: readonly string[]): string => {
  const others = error?.issues.filter(({ path }) => !quoted.includes(path.join('.'))) ?? [];
  const lines = [
    ...quoted.map((name) => `  ${name}: must not stand in quotes`),
    ...others.map(({ path, message }) => `  ${path.join('.') || 'settings'}: ${plain(message)}`),
  ];
  return [...new Set(lines)].join('\n');
};

const plain = (message: string): string => (message.endsWith('received undefined') ? 'must be set' : message);

/**
 * A service's settings from the environment. Ends the process: with the list of settings for `--help`, and with all
 * faults named at once where one is missing or wrong. Blanks around a value are no part of it: a secret from a file
 * brings the end of its line along. What is empty then counts as unset, as does a link to a Service.
 */
export const readSettings = <T extends z.ZodType>(service: string, summary: string, schema: T): z.output<T> => {
  if (process.argv.includes('--help')) {
    process.stdout.write(`${service}: ${summary}\n\n${settingsHelp(schema)}`);
    process.exit(0);
  }
  const trimmed = Object.entries(process.env).map(([name, value]) => [name, value?.trim()]);
  const environment = Object.fromEntries(trimmed.filter(([, value]) => value !== '' && !isServiceLink(value)));
  const settings = schema.safeParse(environment);
  const quoted = quotedIn(environment, schema);
  if (settings.success && quoted.length === 0) return settings.data;
  process.stderr.write(
    `${service} cannot start, its settings are wrong:\n${describeFaults(settings.error, quoted)}\nSee ${service} --help for all settings.\n`,
  );
  process.exit(2);
};
