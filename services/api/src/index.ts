export { decideEntry } from './join/decide-join.ts';
