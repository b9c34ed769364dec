/** Something that the person who started can mend: told in plain sentences, without a stack. */
export class StartFailure extends Error {
  override readonly name = 'StartFailure';
}
